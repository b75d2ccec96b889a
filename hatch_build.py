"""What the package requires, read from requirements*.txt when it is built, so that every range is written once."""

import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

EXTRAS = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "dashboards": ("wandb-workspaces",),
    "pyterrier": ("python-terrier",),
    "lora": ("peft",),
    "serve": ("starlette", "uvicorn", "prometheus-client"),
    "sentence-transformers": ("sentence-transformers",),
    "faiss": ("faiss-cpu",),
}
TORCH = "torch>=2.11"  # requirements.txt pins the CPU build; an installed package takes the torch that is there


class RequirementsHook(MetadataHookInterface):
    """Sets the dependencies and the extras; hatchling finds it in this file."""

    def update(self, metadata: dict) -> None:
        """Set them, from the files beside pyproject.toml."""
        root = Path(self.root)
        metadata["dependencies"] = [TORCH if line.startswith("torch==") else line for line in read_lines(root, "")]
        ranges = {re.match(r"[\w.-]+", line)[0]: line for line in read_lines(root, "-dev")}
        extras = {extra: [ranges[name] for name in names] for extra, names in EXTRAS.items()}
        metadata["optional-dependencies"] = {"report": read_lines(root, "-report"), **extras}


def read_lines(root: Path, kind: str) -> list[str]:
    """Return the requirements of one file, without comments and the names of other files."""
    lines = (root / f"requirements{kind}.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith(("#", "-"))]
