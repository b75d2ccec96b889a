"""A cross-encoder as one ONNX graph: written, made int8 for CPUs, and run by onnxruntime.

    write_onnx(model, directory)                     # directory/onnx/model.onnx: token ids in, scores out
    quantise(directory / ONNX_FILE)                  # for CPUs: embeddings and matrix products become int8
    scorer = OnnxScorer(directory / ONNX_FILE)       # what CrossEncoder has in place of a backbone

Names follow the Hub's: inputs input_ids, attention_mask and, where the model takes them, token_type_ids, each [P, L];
output logits [P, 1]. onnxruntime 1.23 or newer reads the graph (opset 23 has attention as one operator;
ModernBERT's is of opset 22).
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
    """Scores pairs in onnxruntime: stands where CrossEncoder has a backbone, and its only state is the score.

    On CUDA where onnxruntime has it (onnxruntime-gpu), else on as many CPU threads as torch uses.
    """

    def __init__(self, file: Path):
        """Open the graph; raises InputError where onnxruntime is missing or cannot read it."""
        super().__init__()
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
        except Exception as error:  # its classes are many, and private
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{file}: onnxruntime cannot read it ({reason})") from None
        self.names = [given.name for given in self.session.get_inputs()]
        if not set(self.names) <= set(INPUTS) or self.session.get_outputs()[0].shape[-1] != 1:
            raise InputError(f"{file}: takes {', '.join(self.names)}: expected {', '.join(INPUTS)} and one score")
        self.config = SimpleNamespace(model_type="onnx", hidden_size=1)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> SimpleNamespace:
        """Return the scores [P, 1, 1] as the states of a backbone are returned."""
        given: dict[str, Any] = dict(zip(INPUTS, (input_ids, attention_mask, token_type_ids), strict=True))
        feed = {name: np.ascontiguousarray(given[name].cpu().numpy()) for name in self.names}
        (scores,) = self.session.run(None, feed)
        return SimpleNamespace(last_hidden_state=torch.from_numpy(scores).to(input_ids.device)[:, :, None])
