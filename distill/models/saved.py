"""The directory of a saved model: its files, written and fetched."""

import json
import os
from pathlib import Path

from distill.errors import InputError

LENGTHS_FILE = "distill.json"  # query and passage length, which no file of sentence-transformers can hold
HEAD_FILE = "2_Dense/model.safetensors"
ONNX_FILE = "onnx/model.onnx"
MODULES = [  # sentence-transformers reads these names and classes
    ("", "sentence_transformers.base.modules.transformer.Transformer"),
    ("1_Pooling", "sentence_transformers.sentence_transformer.modules.pooling.Pooling"),
    ("2_Dense", "sentence_transformers.base.modules.dense.Dense"),
]


def find_head(name: str, revision: str | None) -> Path | None:
    """Return the file of a saved cross-encoder's linear layer, None where the encoder has none."""
    if os.path.isdir(name):
        file = Path(name) / HEAD_FILE
        return file if file.is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(name, HEAD_FILE, revision=revision))
    except EntryNotFoundError:
        return None


def download(name: str) -> Path:
    """Fetch a saved model from the Hub into its cache, safetensors and texts only."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if name.startswith((".", "/", "~")):
        raise InputError(f"{name}: no such directory")
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.txt", "*.safetensors", "*.model", "*.jinja"]))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        reason = " ".join(str(error).split()).split(". ")[0]
        raise InputError(f"{name}: no such directory, and the Hub does not give it: {reason}") from error


def write_json(path: Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
