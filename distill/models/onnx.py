"""A cross-encoder exported as one ONNX graph, run by onnxruntime.

    scorer = OnnxScorer(directory / ONNX_FILE)       # takes the place of CrossEncoder's backbone

distill/export/onnx.py writes such graphs. Names follow those on the Hub: inputs input_ids, attention_mask and, if the
model uses them, token_type_ids, each [P, L]; output logits [P, 1].
Shapes: P pairs, L tokens of the longest pair.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distill.errors import InputError

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
PACKAGES = "pip install onnx onnxscript onnxruntime"


class OnnxScorer(nn.Module):
    """Scores pairs in onnxruntime, in place of CrossEncoder's backbone; the state it returns is the score itself.

    Runs on CUDA if onnxruntime supports it (onnxruntime-gpu), else on as many CPU threads as torch uses.
    """

    def __init__(self, file: Path):
        """Open the graph; raises InputError if onnxruntime is missing or cannot read it."""
        super().__init__()
        self.file = file
        try:
            import onnxruntime
        except ImportError:
            raise InputError(f"{file}: needs onnxruntime: pip install onnxruntime") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
        providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
        try:
            self.session = onnxruntime.InferenceSession(str(file), options, providers=providers)
        except Exception as error:  # onnxruntime's exception classes are many, and private
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{file}: onnxruntime cannot read it ({reason})") from None
        self.names = [given.name for given in self.session.get_inputs()]
        if not set(self.names) <= set(INPUTS) or self.session.get_outputs()[0].shape[-1] != 1:
            raise InputError(f"{file}: takes {', '.join(self.names)}: expected {', '.join(INPUTS)} and one score")
        self.config = SimpleNamespace(model_type="onnx", hidden_size=1)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> SimpleNamespace:
        """Return the scores as a backbone returns its states, as last_hidden_state [P, 1, 1]."""
        given: dict[str, Any] = dict(zip(INPUTS, (input_ids, attention_mask, token_type_ids), strict=True))
        feed = {name: np.ascontiguousarray(given[name].cpu().numpy()) for name in self.names}
        try:
            (scores,) = self.session.run(None, feed)
        except Exception as error:  # onnxruntime's exception classes are many, and private
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"{self.file}: onnxruntime cannot score pairs of {input_ids.shape[1]} tokens ({reason}): lower "
                "passage_length if they are longer than the model reads"
            ) from None
        return SimpleNamespace(last_hidden_state=torch.from_numpy(scores).to(input_ids.device)[:, :, None])
