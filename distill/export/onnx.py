"""Export a cross-encoder as one ONNX graph, and quantise it to int8 for CPUs.

    write_onnx(model, directory)                     # directory/onnx/model.onnx: token ids in, scores out
    quantise(directory / ONNX_FILE)                  # for CPUs: embeddings and matrix products become int8

Names follow those on the Hub: inputs input_ids, attention_mask and, if the model uses them, token_type_ids, each [P,
L]; output logits [P, 1], before the activation that config.json names. By default the graph has opset 18, which
onnxruntime reads since 1.14: search engines have old ones. In opset 23, attention is one operator, and faster.
Shapes: P pairs, L tokens of the longest pair.
"""

import contextlib
import copy
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from distill.errors import InputError
from distill.models.onnx import INPUTS, PACKAGES, OnnxScorer
from distill.models.padded import PaddedChunk
from distill.models.saved import ONNX_FILE

OPSET = 18
QUANTISED = ["MatMul", "Gather"]  # of the products, those with weights: queries, keys and values stay float32
STACK_TRACE = "pkg.torch.onnx.stack_trace"
TOLERANCE = 1e-4  # between the scores of the graph and those of the model, relative and absolute


class _Whole(nn.Module):
    """The whole computation, from token ids to logits."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        chunk = PaddedChunk(None, input_ids, attention_mask, token_type_ids)  # type: ignore[arg-type]
        return self.model(chunk)[:, None]  # [P, 1]


def write_onnx(model, directory: Path, opset: int = OPSET) -> None:
    """Write a CrossEncoder as directory/onnx/model.onnx in float32, and check its scores in onnxruntime.

    Raises InputError if a package is missing, or if the graph's scores differ.
    """
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"format=onnx needs {error.name}: {PACKAGES}") from None
    model = copy.deepcopy(model).cpu().eval()
    model.choose_layout("padded")
    model.activation = nn.Identity()
    names = INPUTS if model.takes_token_types else INPUTS[:2]
    file = directory / ONNX_FILE
    file.parent.mkdir(parents=True)
    with torch.no_grad(), _quiet():
        torch.onnx.export(
            _Whole(model), _examples(model, 2, 7)[: len(names)], str(file), input_names=names, output_names=["logits"],
            dynamic_shapes=({0: "pairs", 1: "tokens"},) * len(names),
            opset_version=opset, external_data=_is_large(model), verbose=False,
        )  # fmt: skip
    _drop_places(file)
    scorer = OnnxScorer(file)
    for shape in ((1, 5), (3, 8), (4, min(model.max_length, 64))):
        examples = _examples(model, *shape)
        with torch.no_grad():
            expected = _Whole(model)(*examples)
        scores = scorer(**dict(zip(INPUTS, examples, strict=True))).last_hidden_state[:, 0]
        if not torch.allclose(scores, expected, rtol=TOLERANCE, atol=TOLERANCE):
            difference = (scores - expected).abs().max().item()
            raise InputError(f"onnx: its scores differ from the model's by {difference:.1e}: it cannot be exported")


def _drop_places(file: Path) -> None:
    """Drop what the exporter noted on each node: the files and lines of this machine that it came from."""
    import onnx

    graph = onnx.load(file, load_external_data=False)  # the weights of a large one stay in their file
    for part in (*graph.graph.node, *(node for function in graph.functions for node in function.node)):
        part.doc_string = ""
        kept = [one for one in part.metadata_props if one.key != STACK_TRACE]
        del part.metadata_props[:]
        part.metadata_props.extend(kept)
    onnx.save(graph, file)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters' logs and warnings, but not their errors."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(level)


def _is_large(model) -> bool:
    return sum(parameter.numel() for parameter in model.parameters()) * 4 > 2**31 - 2**27  # protobuf holds 2 GiB


def _examples(model, num_pairs: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return random token ids of pairs of different lengths, with their mask and types."""
    draw = torch.Generator().manual_seed(length)
    ids = torch.randint(model.backbone.config.vocab_size, (num_pairs, length), generator=draw)
    mask = (torch.arange(length) < length - torch.arange(num_pairs)[:, None]).long()
    types = (torch.arange(length) >= length // 2).long().expand(num_pairs, -1)
    types = types * int(model.template.second_type)
    ids = torch.where(mask.bool(), ids, model.tokenizer.pad_token_id)
    return ids, mask, types * mask


def quantise(file: Path) -> None:
    """Quantise a graph's embeddings and matrix products to int8: weights per channel, activations dynamically."""
    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError as error:
        raise InputError(f"format=onnx-int8 needs {error.name}: {PACKAGES}") from None
    aside = file.with_suffix(".int8")
    with _quiet():
        quantize_dynamic(file, aside, op_types_to_quantize=QUANTISED, per_channel=True, weight_type=QuantType.QInt8)
    for old in file.parent.glob(f"{file.name}*"):  # a large graph has its weights in a second file
        old.unlink()
    os.replace(aside, file)
