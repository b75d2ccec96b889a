"""Where a model is: in a directory, among the models that the package carries, or on the Hub.

    locate_model("NAME")                    # .../distill/models/packaged/NAME, if the package carries it
    locate_model("outputs/.../model")       # as given: a directory, else a Hub id

A directory comes first, then a packaged model, then the Hub. Names of packaged models have no slash. Imports no torch.
"""

import os
from pathlib import Path

PACKAGED = Path(__file__).resolve().parent / "packaged"  # a directory for each model, as save_pretrained writes it


def locate_model(name: str | Path) -> str:
    """Return the directory of a packaged model, and any other name as it was given."""
    name = str(name)
    return str(PACKAGED / name) if name in packaged_models() and not os.path.isdir(name) else name


def packaged_models() -> list[str]:
    """Return the names of the models that the package carries."""
    return sorted(path.parent.name for path in PACKAGED.glob("*/config.json"))


def known_instead(name: str | Path) -> str:
    """Return the end of an error about a name that leads nowhere: the packaged models, if it could be one of them."""
    could_be = os.sep not in str(name) and "/" not in str(name) and not os.path.isdir(name)
    return f"; the package carries {', '.join(packaged_models())}" if could_be and packaged_models() else ""
