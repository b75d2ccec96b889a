"""What opening any cross-encoder needs: its parts; weights, tokenizer and JSON files, read or refused in one line."""

import contextlib
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file
from torch import Tensor, nn

from distill.data.pairs import PairTemplate
from distill.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LARGEST = 2**31 - 1  # of the whole numbers in a model's JSON files
COPY_ANEW = "copy the file anew from where the model was saved"


@dataclass
class Parts:
    """What a cross-encoder consists of: s = activation(head(projection(pooled state)))."""

    backbone: "PreTrainedModel"
    tokenizer: Any
    weight: Tensor  # [1, D] of the linear layer
    bias: Tensor  # [1]
    pooling: str = "cls"  # or "mean", or "last"
    projection: nn.Module = field(default_factory=nn.Identity)  # of the pooled state, before the linear layer
    activation: nn.Module = field(default_factory=nn.Identity)  # of the score
    lengths: tuple[int, int] | None = None  # tokens of query and passage, cut each by itself
    max_length: int | None = None  # or tokens of the pair, of which the longer text is cut
    template: PairTemplate | None = None  # what stands around the texts, where the tokenizer itself does not say


def load_whole(auto_class, path: Path) -> "PreTrainedModel":
    """Load with transformers, which would draw missing weights at random."""
    import torch

    if not any(path.glob("*.safetensors")):
        pickled = (
            ", and a pickle is not opened: save the model anew with transformers" if any(path.glob("*.bin")) else ""
        )
        raise InputError(f"{path}: has no weights as safetensors{pickled}")
    model, info = auto_class.from_pretrained(
        path, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, output_loading_info=True
    )
    check_whole(path, info["missing_keys"])
    return model


def check_whole(path: Path, missing) -> None:
    """Raise InputError for missing weights, but for those of a bare encoder's pooler, which no score reads."""
    missing = sorted(key for key in missing if not key.startswith("pooler."))
    if missing:
        raise InputError(f"{path}: lacks {len(missing)} of its weights ({missing[0]}): the checkpoint is not whole")


def fill(module: nn.Module, weights: dict[str, Tensor], path: Path, prefix: str = "") -> None:
    """Give a module its weights; raises InputError where one is missing or has another shape."""
    check_shapes(module, weights, path, prefix)
    weights = {key.removeprefix(prefix): tensor.float() for key, tensor in weights.items()}
    state = module.state_dict()
    module.load_state_dict({key: tensor for key, tensor in weights.items() if key in state}, strict=False)


def check_shapes(module: nn.Module, weights: dict[str, Tensor], path: Path, prefix: str = "") -> None:
    """Raise InputError where a weight of the module is missing, or has another shape."""
    weights = {key.removeprefix(prefix): tensor for key, tensor in weights.items()}
    state = module.state_dict()
    check_whole(path, state.keys() - weights.keys())
    for key, tensor in weights.items():
        if key in state and state[key].shape != tensor.shape:
            raise InputError(
                f"{path}: {prefix}{key} has the shape {tuple(tensor.shape)}, but its configuration asks for "
                f"{tuple(state[key].shape)}"
            )


def longest_input(config) -> int:
    """Return the tokens that the backbone's positions reach; no limit where positions are relative only."""
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None or not getattr(config, "position_biased_input", True):
        return sys.maxsize
    if config.model_type in ("roberta", "xlm-roberta", "camembert"):
        return positions - config.pad_token_id - 1  # these count positions from the padding id on
    return positions


def load_tokenizer(name: str | Path, revision: str | None = None, model_type: str | None = None):
    """Load the tokenizer of an encoder by directory or Hub id; raises InputError where it has none.

    model_type: of the backbone, where the directory names a tokenizer class that transformers lacks.
    """
    from transformers import AutoTokenizer

    quiet_transformers()
    if os.path.isdir(name):
        check_tokenizer_files(Path(name))
    with explained(name):
        tokenizer = AutoTokenizer.from_pretrained(
            name, revision=revision, tokenizer_type=model_type, trust_remote_code=False
        )
    check_longest_text(name, tokenizer)
    return tokenizer


def check_longest_text(name: str | Path, tokenizer) -> None:
    """Raise InputError for a tokenizer that cuts texts to no length at all; 1e30 is transformers' word for no limit."""
    longest = tokenizer.model_max_length
    if isinstance(longest, bool) or not isinstance(longest, int | float) or not longest >= 1:
        raise InputError(
            f"{name}: tokenizer_config.json has model_max_length={str(longest)[:40]}: must be a whole number from 1: "
            f"{COPY_ANEW}"
        )
    if isinstance(longest, float):  # as JSON has it where someone wrote 512.0, 1e30 or Infinity
        tokenizer.model_max_length = int(min(longest, 1e30))


def quiet_transformers() -> None:
    """Silence the loading reports and bars of transformers; errors still come through."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def check_tokenizer_files(directory: Path) -> None:
    """Raise InputError for a directory without config.json or tokenizer."""
    names: tuple[str, ...] = (
        "tokenizer.json",
        "vocab.txt",
        "vocab.json",
        "tokenizer.model",
        "spm.model",
        "spiece.model",
    )
    names = (*names, "sentencepiece.bpe.model")
    if not (directory / "config.json").is_file():
        raise InputError(f"{directory}: has no config.json: give the directory of a transformers encoder")
    if not any((directory / name).is_file() for name in names):
        raise InputError(f"{directory}: has no tokenizer (none of {', '.join(names)}): save it there with the model")


@contextlib.contextmanager
def explained(name):
    """Turn what transformers raises for a name that cannot be loaded, or for a package that it lacks, into one line."""
    try:
        yield
    except InputError:
        raise
    except (
        OSError,
        ValueError,
        RuntimeError,
        TypeError,
        LookupError,
        ImportError,
        ArithmeticError,
        AttributeError,
    ) as error:
        reason = " ".join(str(error).split()).split(". ")[0][:300]
        raise InputError(f"{name}: cannot be loaded with transformers: {reason}") from error


def read_json(path: Path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path.parent}: is no saved cross-encoder, it lacks {path.name}") from None
    except ValueError as error:
        raise InputError(f"{path}: is no JSON ({error})") from None


def read_object(path: Path) -> dict:
    """Return the JSON object that a file holds; raises InputError like `read_json`, and for another kind of value."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise InputError(f"{path}: holds a {type(found).__name__}: expected a JSON object: {COPY_ANEW}")
    return found


def read_count(config: dict, key: str, file: Path, low: int = 1, optional: bool = False) -> int | None:
    """Return a whole number from a JSON object; raises InputError for what is none, or out of all bounds.

    optional: whether it may be absent or null, for None.
    """
    value = config.get(key)
    if value is None and optional:
        return None
    if type(value) is not int or not low <= value <= LARGEST:  # True is an int, too
        given = f"{key}={str(json.dumps(value))[:40]}" if key in config else f"{key} is missing"
        raise InputError(f"{file}: {given}: must be a whole number from {low} to {LARGEST}: {COPY_ANEW}")
    return value


def read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(f"{path}: no such file: weights are read from safetensors alone, a pickle is not opened")
    return load_file(path)
