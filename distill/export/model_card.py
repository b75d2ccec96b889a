"""Write the model card: training data and teacher, measured results, how to use, train again and cite the model.

    write_card(directory, cfg, results, command, model)      # README.md of a trained model, from its run, by card.md
    card = exported_card(Path(model), "onnx")        # the same card, with the code for another format

The Hub reads the YAML at its top: https://huggingface.co/docs/hub/model-cards
"""

import importlib.metadata
import logging
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from markupsafe import Markup
from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from distill.config.composition import ROOT
from distill.config.saved import parse_data
from distill.errors import InputError, printable
from distill.export.onnx import OPSET
from distill.export.use import HUB_NAME, has_prompt, own_use, use
from distill.models.calibration import Platt
from distill.models.heads import module_files
from distill.models.locate import locate_model
from distill.secrets import for_others
from distill.sources.locate import is_path, is_remote
from distill.storage.quoting import plain_template, to_markdown
from distill.storage.small_files import read_small
from distill.storage.writing import write_text
from distill.targets import part_targets, parts_of, split_target, targets_of

log = logging.getLogger(__name__)

MAX_CARD = 2**18  # bytes; ours have about 4 kB

CITED = """\
- Schlatt et al., Rank-DistiLLM: Closing the Effectiveness Gap Between Cross-Encoders and LLMs for Passage Re-Ranking,
  ECIR 2025, https://arxiv.org/abs/2405.07920
- Morand et al., Reproducing and Comparing Distillation Techniques for Cross-Encoders, 2026,
  https://arxiv.org/abs/2603.03010"""


def write_card(directory: Path, cfg: DictConfig, results: dict[str, float], command: str | None, model=None) -> None:
    """Write README.md of a trained model; a card that cannot be made costs a warning. Raises DiskError.

    cfg: the training configuration. results: as in results.json; the tables show the rows test, teacher and
    first_stage. command: the command that trained the model, None if there was none. model: the trained CrossEncoder.
    """
    try:
        card = make_card(cfg, results, command, model)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, YAMLError, TemplateError) as error:
        log.warning("%s: no model card (%s)", directory, printable(f"{type(error).__name__}: {error}"))
        return
    write_text(directory / "README.md", card)


def make_card(cfg: DictConfig, results: dict[str, float], command: str | None, model=None) -> str:
    """Return the card of a trained model, in Markdown with YAML at its top.

    model: the CrossEncoder, which has its head; None: an encoder with a new linear layer.
    """
    base = _base_model(str(cfg.backbone.name))
    encoder = base or Path(cfg.backbone.name).name  # of a local directory, only its name
    name = f"{encoder} taught by {cfg.teacher.name}"
    packaged = cfg.backbone.name if locate_model(cfg.backbone.name) != cfg.backbone.name else None
    trained = f" as trained {f'for {packaged}' if packaged else 'before'}" if base and base != cfg.backbone.name else ""
    reads_scores = cfg.model.first_stage_score is not None
    kind = "decoder" if model is not None and model.is_decoder else "encoder"
    facts = {
        kind.capitalize(): f"{encoder}{trained}, {_head(cfg, model)}",
        "Trained": _trained(cfg.model),
        "Reads": f"{cfg.model.query_length} tokens of a query and {cfg.model.passage_length} of a passage"
        + (f", and the first stage's score ({cfg.model.first_stage_score})" if reads_scores else "")
        + (", within the prompt of its chat template" if has_prompt(model) else ""),
        "Data": "; ".join(map(_data, [cfg.data, *(part.data for part in cfg.datasets.values())])),
        "Teacher": ", ".join(_named(teacher.name, teacher.path) for teacher in _teachers(cfg)),
        "Loss": _loss(cfg.loss),
        "Depth": cfg.data.depth or "whole lists",
        "Negatives": cfg.data.num_negatives,
        "Steps": f"{int(results['train/steps'])} of {cfg.train.batch_size} lists, AdamW with lr {cfg.optimizer.lr:g}",
        "Probability": _probability(results),
        "Seed": cfg.seed,
        "Made": f"{datetime.now(UTC):%Y-%m-%d} with torch {importlib.metadata.version('torch')} and transformers "
        f"{importlib.metadata.version('transformers')}",
    }
    licence = [f"The teacher's rankings: {teacher.licence.strip()}." for teacher in _teachers(cfg) if teacher.licence]
    licence += [f"This model: {cfg.licence}." if cfg.licence else "No licence was chosen for this model."]
    licence += [f"The {kind} that it was trained from has its own terms."]
    cited = [to_markdown(" ".join(teacher.citation.split())) for teacher in _teachers(cfg) if teacher.citation]
    shown = for_others(command) if command is not None else ""
    card = _render(
        metadata=Markup(_metadata(cfg, name, base, results)),
        name=name,
        learned=_learned(cfg.loss),
        facts=[(key, value) for key, value in facts.items() if value is not None],
        measured=_results_lines(results),
        use=Markup(own_use(cfg)),
        command=Markup(shown),
        fence=Markup("`" * max(3, 1 + max(map(len, re.findall("`+", shown)), default=0))),
        licence=licence,
        cited=Markup(CITED + "".join(f"\n- The teacher's rankings: {one}" for one in cited)),
    )
    return for_others(card)


def _probability(results: dict[str, float]) -> str | None:
    """Return how a score becomes the probability of relevance; None for a model that was not calibrated."""
    if "calibration/temperature" in results:
        calibration = Platt(results["calibration/temperature"], results["calibration/offset"], 1, 0)
        return f"{calibration.describe()}, fitted on the validation queries; see calibration in distill.json"
    fitted = any(name.startswith("calibration/") for name in results)
    return "the isotonic curve in distill.json, fitted on the validation queries" if fitted else None


def _head(cfg: DictConfig, model) -> str:
    """Return what is on top of the encoder or decoder: its pooling and its layers."""
    if model is None:
        return f"{cfg.model.pooling} pooling, one linear layer"
    if model.causal is not None:
        return "the last token's state, the difference of the rows of its answers"
    if model.native is not None:
        state = "the last token's state, " if model.is_decoder else ""
        return f"{state}the head of {model.native.architecture.__name__}"
    layers = [name for name, *_ in module_files(model)]
    return f"{model.pooling} pooling, {'one linear layer' if layers == ['Dense'] else ', '.join(layers)}"


def _trained(cfg: DictConfig) -> str | None:
    """Return which part was trained; None: all of it."""
    if cfg.lora.rank is not None:
        names = "all linear layers" if cfg.lora.targets is None else ", ".join(cfg.lora.targets)
        return f"LoRA of rank {cfg.lora.rank} and alpha {cfg.lora.alpha:g} on {names}, and the head"
    frozen = ["the embeddings"] if cfg.freeze.embeddings else []
    if cfg.freeze.layers:
        frozen.append("the first layer" if cfg.freeze.layers == 1 else f"the first {cfg.freeze.layers} layers")
    return f"all but {' and '.join(frozen)}" if frozen else None


def _teachers(cfg: DictConfig) -> list[DictConfig]:
    return [cfg.teacher, *cfg.teachers.values(), *(part.teacher for part in cfg.datasets.values())]


def _data(data: DictConfig) -> str:
    return _named(data.name, data.passages) + (f", {data.num_queries} queries" if data.num_queries else "")


def _loss(loss: DictConfig) -> str:
    """Return a loss in words: "kl, learning from score", or the parts of a mixture with their weights."""
    if "parts" not in loss:
        return f"{loss.name}, learning from {loss.target}"
    parts = []
    for name, part in parts_of(loss).items():
        weight = loss.weights[name]
        times = f"{weight[0]:g} to {weight[1]:g}" if OmegaConf.is_list(weight) else f"{weight:g}"
        parts.append(f"{times} × {part.name} learning from {' and '.join(part_targets(loss, name))}")
    return f"{loss.name}: {', '.join(parts)}"


def _learned(loss: DictConfig) -> str:
    """Return what a model learned: "from labels", "a slower teacher's scores", or both."""
    kinds = dict.fromkeys(split_target(target)[1] for target in targets_of(loss))
    taught = " and ".join(f"{kind}s" for kind in kinds if kind != "label")
    parts = ([f"a slower teacher's {taught}"] if taught else []) + (["from labels"] if "label" in kinds else [])
    return " and ".join(parts)


def _render(**values: Any) -> str:
    """Fill the template; what is not marked as Markdown is escaped."""

    def quoted(value: Any) -> object:
        return value if isinstance(value, Markup) else to_markdown(str(value))

    return plain_template(Path(__file__).with_name("card.md"), quoted).render(**values)


def _base_model(backbone: str) -> str | None:
    """Return an encoder's name on the Hub; for a model trained in an earlier stage, that of its encoder."""
    directory = locate_model(backbone)
    if not os.path.isdir(directory):
        return backbone
    card = Path(directory) / "README.md"
    try:  # the card may be anyone's: only this one name is taken of it
        front = read_small(card, MAX_CARD).removeprefix("---\n").partition("\n---")[0] if card.is_file() else ""
        base = parse_data(front, str(card)).get("base_model")
    except InputError:
        return None
    return base if isinstance(base, str) and HUB_NAME.fullmatch(base) else None


def _named(name: str, source: Any) -> str:
    """Return a group's name with its source, or its sources: an address or id in full, only the name of a file."""
    if source is None or source == name:
        return name
    sources = [source] if isinstance(source, str) else list(source)
    if Path(sources[0]).is_relative_to(ROOT / "sample"):
        return name
    shown = [one.split("#")[0] if is_remote(one) or not is_path(one) else Path(one).name for one in sources]
    return f"{name} ({', '.join(shown)})"


def exported_card(
    model: Path,
    target: str,
    repo_id: str | None = None,
    dtype: str = "float32",
    *,
    in_prompt: bool = False,
    opset: int = OPSET,
) -> str | None:
    """Return the card of a model, with the code for another format; None if it has no card.

    model: a directory, or the name of a packaged model. repo_id: the Hub repository that the model will be loaded from;
    None: a directory. dtype: of the exported weights. in_prompt: whether it reads pairs within a prompt.
    opset: of an ONNX graph.
    """
    file = Path(locate_model(model)) / "README.md"
    if not file.is_file():
        return None
    try:
        text = for_others(read_small(file, MAX_CARD))
    except InputError as error:
        log.warning("%s: exported without its card", error)
        return None
    text = re.sub(
        r"(?ms)^## Use\n.*?(?=^## )",
        lambda _: f"## Use\n\n{use(target, repo_id, in_prompt=in_prompt, opset=opset)}\n",
        text,
        count=1,
    )
    if target == "onnx-int8":
        text = text.replace("## Measured\n", "## Measured\n\nIn float32, before the model was made int8:\n", 1)
    elif dtype != "float32":
        text = text.replace("## Measured\n", f"## Measured\n\nBefore the weights were rounded to {dtype}:\n", 1)
    library = {"lightning-ir": "lightning-ir", "transformers": "transformers"}.get(target, "sentence-transformers")
    library = "onnx" if target.startswith("onnx") else library
    return re.sub(r"(?m)^library_name: .*$", f"library_name: {library}", text, count=1)


def _metadata(cfg: DictConfig, name: str, base: str | None, results: dict[str, float]) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    measured = [
        EvalResult("text-ranking", task, task, measure, value, metric_name=measure)
        for row, task, measure, value in _measured(results)
        if row == "test"
    ]
    return ModelCardData(
        license=cfg.licence,
        library_name=_library(cfg.model),
        pipeline_tag="text-ranking",
        base_model=base,
        tags=["cross-encoder", "reranker", "distillation", f"loss:{cfg.loss.name}", f"teacher:{cfg.teacher.name}"],
        model_name=name if measured else None,
        eval_results=measured or None,
    ).to_yaml()


def _library(cfg: DictConfig) -> str | None:
    if cfg.first_stage_score is not None:
        return None
    return "peft" if cfg.lora.rank is not None and cfg.lora.save == "adapters" else "sentence-transformers"


def _measured(results: dict[str, float]) -> list[tuple]:
    """Return row, task, measure and value of each result measured on a task."""
    names = [(name.split("/", 2), value) for name, value in results.items() if name.count("/") == 2]
    return [(*parts, value) for parts, value in names if parts[0] in ("first_stage", "teacher", "test")]


def _results_lines(results: dict[str, float]) -> list[dict[str, Any]]:
    values = {(task, measure, row): value for row, task, measure, value in _measured(results)}
    lines = []
    for task, measure in (key[:2] for key in values if key[2] == "test"):
        of_rows = [values.get((task, measure, row)) for row in ("first_stage", "teacher", "test")]
        cells = [Markup("" if value is None else f"{value:.4f}") for value in of_rows]
        lines.append({"task": task, "measure": measure, "cells": cells})
    return lines
