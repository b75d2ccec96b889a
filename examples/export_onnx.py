"""Export a model to ONNX and score a pair with onnxruntime: neither torch nor distill is needed to serve it.

Run: python -m examples.export_onnx [MODEL]             (pip install onnx onnxscript onnxruntime)

Prints, passage by passage, both scores:

    onnxruntime 0.78, distill 0.78
    onnxruntime -2.16, distill -2.16
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from distill import CrossEncoder
from distill.export.formats import export

query, passages = "how do bees find home", ["Bees find their way home by the sun.", "Trains follow rails."]
model = CrossEncoder.from_pretrained(sys.argv[1] if len(sys.argv) > 1 else "googleq-minilm-3")
with tempfile.TemporaryDirectory() as directory:
    export(model, Path(directory) / "out", "onnx", card="")
    session = onnxruntime.InferenceSession(Path(directory) / "out" / "onnx" / "model.onnx")
    tokenizer = Tokenizer.from_file(str(Path(directory) / "out" / "tokenizer.json"))
order, expected = model.rank(query, passages)
for place, score in zip(order, expected, strict=True):
    encoded = tokenizer.encode(query, passages[place])
    inputs = {"input_ids": encoded.ids, "attention_mask": encoded.attention_mask, "token_type_ids": encoded.type_ids}
    (found,) = session.run(None, {name: np.array([values]) for name, values in inputs.items()})  # [1, 1]
    print(f"onnxruntime {found.item():.2f}, distill {score:.2f}")
