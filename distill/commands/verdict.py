"""Say whether a student is better than its first stage on held-out queries, and if not, the likeliest reasons.

    python -m distill verdict runs=outputs/own-corpus

Reads what the stages below a directory have left: annotations, the training, evaluations on held-out queries. Prints
the verdict, and writes verdict.md and verdict.json. Both outcomes end with exit status 0.
"""

import itertools
import json
import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig, OmegaConf

from distill.config.checks import check_values
from distill.config.composition import ROOT
from distill.errors import InputError
from distill.jobs import command_line, run_command, shown_path
from distill.sources.literals import escaped

if TYPE_CHECKING:
    from distill.report.facts import Facts

log = logging.getLogger("verdict")

SAMPLED = 500  # passages, whose language and tokens are looked at
WORD_OR_MARK = re.compile(r"\w+|[^\w\s]")


def give_verdict(cfg: DictConfig) -> dict[str, Any]:
    """Give the verdict as configured, and return the contents of verdict.json; raises InputError for bad input."""
    # Imported here, so that --help and a printed configuration do not wait for them
    from distill.report.facts import read_facts
    from distill.report.verdict import judge
    from distill.storage.writing import write_text, writing

    facts = read_facts(Path(cfg.runs))
    add_loss(facts)
    add_language(facts)
    verdict = judge(facts)
    text, found = verdict.text(command_line), verdict.as_json(command_line)
    output = Path(cfg.output)
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
    write_text(output / "verdict.md", text)
    write_text(output / "verdict.json", json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    print(text, end="")
    log.info("verdict: %s", shown_path(output / "verdict.md"))
    return found


def add_loss(facts: "Facts") -> None:
    """Add whether the training's loss fell."""
    from distill.training.verdict import describe_loss

    assert facts.student_directory is not None
    metrics = facts.student_directory / "metrics.jsonl"
    if metrics.is_file():
        facts.loss = describe_loss(OmegaConf.create(escaped(facts.student)), metrics) or ""


def add_language(facts: "Facts") -> None:
    """Add the language of the passages, and how well the student's tokenizer knows it, as far as both can be read."""
    from distill.models.parts import load_tokenizer
    from distill.retrieval.languages import languages_of
    from distill.retrieval.words import BIGRAMS
    from distill.sources.fields import Fields
    from distill.sources.texts import iterate_texts

    assert facts.student_directory is not None
    data = facts.student["data"]
    fields = Fields(data.get("id_field"), None if data.get("text_fields") is None else tuple(data["text_fields"]))
    try:
        tokenizer = load_tokenizer(str(facts.student_directory / "model"))
        texts = [text for _, text in itertools.islice(iterate_texts(data["passages"], "passages", fields), SAMPLED)]
    except (InputError, OSError) as error:  # the corpus may have moved: the verdict can do without
        log.warning("the language of the passages is not looked at: %s", error)
        return
    language = next(iter(languages_of(texts)), None)
    facts.language = "a language without spaces" if language == BIGRAMS else language
    tokens = [token for ids in tokenizer(texts, add_special_tokens=False)["input_ids"] for token in ids]
    facts.unknown_tokens = tokens.count(tokenizer.unk_token_id) / max(len(tokens), 1)
    if language != BIGRAMS:
        facts.pieces = len(tokens) / max(sum(len(WORD_OR_MARK.findall(text)) for text in texts), 1)


def describe(cfg: DictConfig) -> str:
    """Return the first line of output."""
    return f"giving the verdict on {cfg.runs}"


@hydra.main(config_path=str(ROOT / "conf"), config_name="verdict", version_base="1.3")
def run(cfg: DictConfig) -> None:
    """Give the verdict once; bad input ends with a one-line message and exit status 2."""
    run_command(cfg, describe, check_values, give_verdict, os.path.join(cfg.output, "verdict.md"))
