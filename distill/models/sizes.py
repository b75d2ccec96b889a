"""The size of a model, bounded by its weights before it is built.

    with explained(path):
        check_size(AutoModel, config, path)
        match_vocabulary(path, tokenizer, rows)

A configuration of a few bytes can ask for a million layers. The model is first built without memory (on torch's device
"meta"), and the building stops as soon as it has many more weights than the safetensors files hold.
"""

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from distill.errors import InputError
from distill.models.json_files import COPY_AGAIN

MAX_NEW_WEIGHTS, MAX_NEW_TENSORS = 2**31, 10_000  # of a model without files: 8 GB
SPARE_TENSORS, SPARE_WEIGHTS = 1000, 2**24  # beside those in the files: position tables, a pooler that is not saved


def check_size(auto_class, config, path: Path | None) -> None:
    """Raise InputError if a configuration asks for no layers, or for many more weights than the directory's files hold.

    path: None for a model with new weights, which may have MAX_NEW_WEIGHTS. Ask within `explained`: transformers may
    raise anything for a configuration that is wrong in other ways.
    """
    layers = getattr(config, "num_hidden_layers", 1)
    if layers < 1:  # torch builds an empty model, which scores by its embeddings
        raise InputError(f"{path or config.model_type}: num_hidden_layers={layers}: must be 1 or more: {COPY_AGAIN}")
    tensors, weights = _held(path) if path is not None else (MAX_NEW_TENSORS, MAX_NEW_WEIGHTS // 2)
    if getattr(config, "quantization_config", None):  # one number of 32 bits may hold eight weights
        weights *= 8
    most = 4 * tensors + SPARE_TENSORS, 2 * weights + SPARE_WEIGHTS
    positions = getattr(config, "max_position_embeddings", None)
    if getattr(config, "sinusoidal_pos_embds", False) and positions * config.hidden_size > most[1]:  # made by NumPy
        raise InputError(_message(path, "positions"))
    with _limited(path, *most), torch.device("meta"), torch.random.fork_rng([]):
        auto_class.from_config(config, trust_remote_code=False)


def match_vocabulary(name: object, tokenizer, rows: int) -> None:
    """Raise InputError for a tokenizer with tokens beyond a model's embeddings that a pair may hold.

    rows: the number of embeddings. Control tokens beyond them that no pair needs, such as a [MASK] that was never
    trained, are read as text: a passage that holds one would otherwise end in an error.
    """
    ids = dict(tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False))
    ids |= {token.content: index for index, token in tokenizer.added_tokens_decoder.items() if not token.special}
    used = [*tokenizer("a", "a")["input_ids"], tokenizer.pad_token_id or 0]
    ids |= {tokenizer.convert_ids_to_tokens(index): index for index in used if index >= rows}
    token, index = max(ids.items(), key=lambda item: item[1], default=("", 0))
    if index >= rows:
        raise InputError(
            f"{name}: its tokenizer gives {token[:40]} the id {index}, but the model has {rows} embeddings: tokenizer "
            f"and model do not belong together: {COPY_AGAIN}"
        )
    if any(index >= rows for index in tokenizer.added_tokens_decoder) and not tokenizer.split_special_tokens:
        _leave_out(tokenizer, rows)


def _leave_out(tokenizer, rows: int) -> None:
    """Take the control tokens beyond a number of embeddings out of a tokenizer."""
    from tokenizers import Tokenizer

    definition = json.loads(tokenizer.backend_tokenizer.to_str())
    definition["added_tokens"] = [token for token in definition["added_tokens"] if token["id"] < rows]
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(definition))


def num_embeddings(model) -> int:
    """Return how many tokens a model has an embedding of."""
    return model.get_input_embeddings().weight.shape[0]


def _held(path: Path) -> tuple[int, int]:
    """Return how many tensors and how many weights the safetensors files of a directory hold."""
    tensors = weights = 0
    for file in sorted(path.glob("*.safetensors")):
        try:
            with safe_open(file, "pt") as opened:
                for name in opened.keys():  # noqa: SIM118
                    tensors += 1
                    weights += math.prod(opened.get_slice(name).get_shape())
        except SafetensorError as error:
            raise InputError(f"{file}: is damaged ({error}): {COPY_AGAIN}") from None
    return tensors, weights


@contextlib.contextmanager
def _limited(path: Path | None, most_tensors: int, most_weights: int) -> Iterator[None]:
    """Let no more weights be registered by modules that are built in this context."""
    from torch.nn.modules import module

    counts = {"tensors": 0, "weights": 0, "modules": 0}

    def count(_module, _name, tensor) -> None:
        if tensor is not None:
            counts["tensors"] += 1
            counts["weights"] += tensor.numel()
        check()

    def count_module(_module, _name, _submodule) -> None:
        counts["modules"] += 1
        check()

    def check() -> None:
        if counts["tensors"] > most_tensors or counts["modules"] > 20 * most_tensors:
            raise InputError(_message(path, "layers"))
        if counts["weights"] > most_weights:
            raise InputError(_message(path, "weights"))

    hooks = [
        module.register_module_parameter_registration_hook(count),
        module.register_module_buffer_registration_hook(count),
        module.register_module_module_registration_hook(count_module),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _message(path: Path | None, what: str) -> str:
    if path is None:
        return (
            f"its configuration asks for more than {MAX_NEW_WEIGHTS / 1e9:.1f} billion new weights: use a smaller one"
        )
    return f"{path / 'config.json'}: asks for many more {what} than its safetensors files hold: {COPY_AGAIN}"
