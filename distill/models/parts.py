"""The parts of a cross-encoder, and readers of weights and tokenizers that refuse bad ones in one line."""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from distill.data.pairs import PairTemplate
from distill.errors import InputError
from distill.models.calibration import Calibration
from distill.models.interpolation import Interpolation
from distill.models.json_files import COPY_AGAIN
from distill.models.locate import known_instead, locate_model
from distill.models.model_files import check_source
from distill.models.saved import ADAPTER_FILE
from distill.models.sizes import check_size
from distill.models.text_options import longest_pair
from distill.models.tokenizer_files import FILES, check_class, in_python

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from distill.models.causal import CausalHead
    from distill.models.early_exit import ExitHead
    from distill.models.heads import NativeHead

NO_LENGTH = 512  # tokens of a pair where no file limits them
Change = Callable[[Any], None]  # of a configuration, before the model is built
CHANGING_MODES = threading.Lock()
EVALUATED: WeakKeyDictionary[nn.Module, tuple[int, bool]] = WeakKeyDictionary()  # number of users, mode to come back to


@dataclass
class Parts:
    """The parts of a cross-encoder: s = activation(head(projection(pooled state))), as in distill/models/heads.py."""

    backbone: "PreTrainedModel"
    tokenizer: Any
    weight: Tensor | None  # [1, D] of the linear layer; None: to be drawn
    bias: Tensor | None  # [1]; None with a weight: the layer has none
    pooling: str = "cls"  # or "mean", or "last"
    projection: nn.Module = field(default_factory=nn.Identity)  # of the pooled state, before the linear layer
    activation: nn.Module = field(default_factory=nn.Identity)  # of the score
    native: "NativeHead | None" = None  # if transformers' own head; None: modules of sentence-transformers
    causal: "CausalHead | None" = None  # if two rows of a causal language model's output matrix
    lengths: tuple[int, int] | None = None  # tokens of query and of passage, each cut separately
    max_length: int | None = None  # or tokens of the pair, whose longer text is cut
    template: PairTemplate | None = None  # the tokens around the texts; None: the tokenizer's special tokens
    interpolation: Interpolation | None = None  # with the first stage; None: no weight was chosen
    calibration: Calibration | None = None  # of the scores; None: none was fitted
    exit: "ExitHead | None" = None  # a score after an inner layer, to go on training; None: it has none
    first_stage_score: str | None = None  # how the first stage's score is scaled, if the pairs hold it

    @property
    def is_linear(self) -> bool:
        """Whether the head is only the linear layer."""
        return isinstance(self.projection, nn.Identity) and isinstance(self.activation, nn.Identity)

    def describe_head(self) -> str:
        """Return a description of the head: `that of BertForSequenceClassification`, or its layers."""
        if self.causal is not None:
            return "the rows of its answers in the output matrix"
        if self.native is not None:
            return f"that of {self.native.architecture.__name__}"
        layers = [*self.projection] if isinstance(self.projection, nn.Sequential) else []
        names = [type(layer).__name__ for layer in layers if not isinstance(layer, nn.Identity)]
        return ", ".join([*names, "Linear"])


def load_whole(auto_class, path: Path, change: Change | None = None) -> "PreTrainedModel":
    """Load a model with transformers; raises InputError for missing weights, which transformers would make random.

    change: of its configuration, before it is loaded.
    """
    import torch
    from transformers import AutoConfig

    if not any(path.glob("*.safetensors")):
        pickled = (
            ", and pickles are never opened: save the model again with transformers" if any(path.glob("*.bin")) else ""
        )
        raise InputError(f"{path}: has no safetensors weights{pickled}")
    config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    if change is not None:
        change(config)
    check_size(auto_class, config, path)
    options = {"config": config} if change is not None else {}
    model, info = auto_class.from_pretrained(
        path, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, output_loading_info=True, **options
    )
    check_whole(path, info["missing_keys"])
    return model


def check_whole(path: Path, missing) -> None:
    """Raise InputError for missing weights, except those of a bare encoder's pooler, which no score uses."""
    missing = sorted(key for key in missing if not key.startswith("pooler."))
    if missing:
        raise InputError(f"{path}: lacks {len(missing)} of its weights ({missing[0]}): the checkpoint is incomplete")


def fill(module: nn.Module, weights: dict[str, Tensor], path: Path, prefix: str = "") -> None:
    """Load weights into a module; raises InputError if one is missing or has another shape."""
    check_shapes(module, weights, path, prefix)
    weights = {key.removeprefix(prefix): tensor.float() for key, tensor in weights.items()}
    state = module.state_dict()
    module.load_state_dict({key: tensor for key, tensor in weights.items() if key in state}, strict=False)


def check_shapes(module: nn.Module, weights: dict[str, Tensor], path: Path, prefix: str = "") -> None:
    """Raise InputError if a weight of the module is missing, or has another shape."""
    weights = {key.removeprefix(prefix): tensor for key, tensor in weights.items()}
    state = module.state_dict()
    check_whole(path, state.keys() - weights.keys())
    for key, tensor in weights.items():
        if key in state and state[key].shape != tensor.shape:
            raise InputError(
                f"{path}: {prefix}{key} has the shape {tuple(tensor.shape)}, but its configuration asks for "
                f"{tuple(state[key].shape)}"
            )


def check_attention(name: str | Path, config) -> None:
    """Raise InputError for a model whose score of a pair depends on which pairs were scored before, or beside it."""
    if config.model_type == "big_bird" and config.attention_type == "block_sparse":
        raise InputError(
            f"{name}: its attention is block-sparse, which scores a pair by how long the others are: set "
            "attention_type to original_full in its config.json"
        )


def is_of_transformers(backbone) -> bool:
    """Whether a backbone is a model of transformers, rather than an ONNX graph or a model that answers in words."""
    from transformers import PreTrainedModel

    return isinstance(backbone, PreTrainedModel)


def longest_input(backbone) -> int:
    """Return how many tokens the backbone's positions cover; sys.maxsize if it has only relative positions."""
    config = backbone.config
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None or positions <= 0 or not getattr(config, "position_biased_input", True):  # of XLNet: -1
        return sys.maxsize
    return positions - first_position(backbone)


def first_position(backbone) -> int:
    """Return the position of the first token: in RoBERTa, MPNet and similar models, positions start after padding's."""
    modules = backbone.named_modules() if isinstance(backbone, nn.Module) else ()
    tables = (module for name, module in modules if name.endswith("embeddings.position_embeddings"))
    padding = getattr(next(tables, None), "padding_idx", None)
    return 0 if padding is None else padding + 1


def pair_length(path: Path, parts: Parts) -> int:
    """Return the length in tokens to which the source library truncates a pair.

    If neither the tokenizer nor the backbone has one, it is NO_LENGTH.
    """
    given = longest_pair(path)
    longest = longest_input(parts.backbone)
    if given is not None:
        return min(given, longest)
    positions = getattr(parts.backbone.config, "max_position_embeddings", None) or -1  # of XLNet: -1, no limit
    length = min(parts.tokenizer.model_max_length, longest, positions if positions > 0 else longest)
    return length if length < 10**6 else NO_LENGTH


def load_tokenizer(name: str | Path, revision: str | None = None, model_type: str | None = None):
    """Load the tokenizer of an encoder by name (as in `locate_model`); raises InputError if it has none.

    model_type: of the backbone, for a directory that names a tokenizer class which transformers lacks.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    quiet_transformers()
    name = locate_model(name)
    if os.path.isdir(name):
        check_tokenizer_files(Path(name))
    with explained(name):
        check_source(name, revision)
        if os.path.isdir(name) and model_type is None:
            check_class(Path(name))
        tokenizer = AutoTokenizer.from_pretrained(
            name, revision=revision, tokenizer_type=model_type, trust_remote_code=False
        )
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise in_python(name, type(tokenizer).__name__)
    check_longest_text(name, tokenizer)
    return tokenizer


def check_longest_text(name: str | Path, tokenizer) -> None:
    """Raise InputError for a tokenizer without a valid maximum length; transformers writes 1e30 for "no limit"."""
    longest = tokenizer.model_max_length
    if isinstance(longest, bool) or not isinstance(longest, int | float) or not longest >= 1:
        raise InputError(
            f"{name}: tokenizer_config.json has model_max_length={str(longest)[:40]}: must be a whole number from 1: "
            f"{COPY_AGAIN}"
        )
    if isinstance(longest, float):  # the JSON file says 512.0, 1e30 or Infinity
        tokenizer.model_max_length = int(min(longest, 1e30))


def quiet_transformers() -> None:
    """Silence the loading reports and progress bars of transformers, but not its errors."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def check_tokenizer_files(directory: Path) -> None:
    """Raise InputError for a directory without config.json or tokenizer."""
    if not (directory / "config.json").is_file():
        if (directory / ADAPTER_FILE).is_file():
            raise InputError(
                f"{directory}: holds adapters, not a whole model: distill export model={directory} base=BACKBONE "
                "format=sentence-transformers output=DIR makes one"
            )
        raise InputError(f"{directory}: has no config.json: give the directory of a transformers encoder")
    if not any((directory / name).is_file() for name in FILES):
        raise InputError(f"{directory}: has no tokenizer (none of {', '.join(FILES)}): save it there with the model")


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Put a model into evaluation mode, and restore the modes of its modules on exit, even after an error.

    Of several threads that use a model at once, the last one restores them: the others still compute.
    """
    with CHANGING_MODES:
        modules = [*model.modules()]
        for module in modules:
            num_users, was_training = EVALUATED.get(module, (0, module.training))
            EVALUATED[module] = num_users + 1, was_training
        model.eval()
    try:
        yield model
    finally:
        with CHANGING_MODES:
            for module in modules:
                num_users, was_training = EVALUATED.pop(module)
                if num_users > 1:
                    EVALUATED[module] = num_users - 1, was_training
                else:
                    module.training = was_training


@contextlib.contextmanager
def explained(name, how: str = "with transformers"):
    """Turn what transformers raises for an unloadable name, or for a missing package, into a one-line InputError."""
    try:
        yield
    except InputError:
        raise
    except BaseException as error:  # libraries raise anything for a damaged file; Rust panics are no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).split()).split(". ")[0][:300]
        if isinstance(error, LookupError | ArithmeticError | AttributeError | AssertionError) or not reason:
            reason = f"{type(error).__name__}: {reason}"  # of a KeyError, the reason is only a key
        raise InputError(f"{name}: cannot be loaded {how}: {reason}{known_instead(name)}") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a file of safetensors; raises InputError if it is missing or damaged."""
    if not path.is_file():
        raise InputError(f"{path}: no such file: weights are read only from safetensors; pickles are never opened")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path}: is damaged ({error}): {COPY_AGAIN}") from None
