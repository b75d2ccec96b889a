"""Cut long articles into overlapping passages, with ids that lead back to them.

    python -m distill cut passages=articles output=P.jsonl                          a folder, 200 words a passage
    python -m distill cut passages=dump.jsonl output=P.jsonl text_fields=[title,body] size=128 overlap=32
    python -m distill cut passages=A.csv output=P.jsonl tokenizer=answerdotai/ModernBERT-base size=256

Article d7 becomes d7#0, d7#1, … Rows that cannot be used are left out and counted. Writes JSON lines with `_id`,
`title` and `text`, completely or not at all.
"""

import functools
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import hydra
from omegaconf import DictConfig

from distill.config.checks import check_values
from distill.config.composition import ROOT
from distill.config.overrides import as_override
from distill.errors import InputError
from distill.jobs import check_output, command_line, run_command

log = logging.getLogger("cut")


class Unusable:
    """Counts rows that are left out, and remembers why the first one was."""

    def __init__(self) -> None:
        """Begin with none."""
        self.count, self.first = 0, ""

    def __call__(self, error: InputError) -> None:
        """Take the error of a row."""
        self.count, self.first = self.count + 1, self.first or str(error)


def cut(cfg: DictConfig) -> dict[str, int]:
    """Cut as configured, and return how many articles, passages and unusable rows there were.

    Raises InputError for bad input, and for too many rows that cannot be used.
    """
    # Imported here, so that --help and a printed configuration do not wait for them
    from distill.config.local_files import with_local_files
    from distill.storage.writing import write_whole

    output = Path(cfg.output)
    check_output(output, cfg.passages, written="JSON lines")
    local, unusable = with_local_files(cfg), Unusable()
    cut_article = article_cutter(cfg)
    counts = {"articles": 0, "passages": 0, "unusable": 0}

    def write(path: Path) -> None:
        with open(path, "w", encoding="utf-8", newline="\n") as file:
            for article_id, title, text in read_articles(local, unusable):
                rows = cut_article(article_id, title, text)
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
                counts["articles"] += 1
                counts["passages"] += len(rows)
        counts["unusable"] = unusable.count
        _check_share(cfg, counts, unusable.first)

    write_whole(output, write, is_new=True)
    log.info("%(articles)d articles, %(passages)d passages", counts)
    overrides = [as_override("passages", output), "queries=...", "output=..."]
    log.info("next: %s; with judgments of articles: task.max_passage=true", command_line("retrieve", *overrides))
    return counts


def _check_share(cfg: DictConfig, counts: dict[str, int], first: str) -> None:
    """Say how many rows were left out; raises InputError where they are too many, or all."""
    total = counts["articles"] + counts["unusable"]
    if not counts["passages"]:
        raise InputError(first or f"{cfg.passages}: holds no article: expected rows with an id and a text")
    if counts["unusable"] > cfg.max_unusable * total:
        raise InputError(
            f"{cfg.passages}: {counts['unusable']} of {total} rows cannot be used, more than "
            f"max_unusable={cfg.max_unusable:g} allows (first: {first}): correct them, or raise max_unusable"
        )
    if counts["unusable"]:
        log.warning(
            "%s: %d of %d rows cannot be used: left out (first: %s)", cfg.passages, counts["unusable"], total, first
        )


def read_articles(cfg: DictConfig, unusable: Callable[[InputError], None]) -> Iterator[tuple[str, str, str]]:
    """Yield (id, title, text) of every article that has a text or a title."""
    from distill.progress import Progress
    from distill.sources.fields import Fields, usual_name
    from distill.sources.texts import passage_parts

    texts = None if cfg.text_fields is None else tuple(cfg.text_fields)
    rows = passage_parts(cfg.passages, Fields(cfg.id_field, texts), unusable)
    seen: set[str] = set()
    has_titles = False
    for place, article_id, parts in Progress(rows, f"cutting {cfg.passages}", unit=" articles"):
        titles = [name for name in parts if usual_name(name) == usual_name(cfg.title_field)]
        has_titles = has_titles or bool(titles)
        title = " ".join(" ".join(parts.pop(name) for name in titles).split())
        text = "\n\n".join(part for part in parts.values() if part.strip())
        if article_id in seen:
            unusable(InputError(f"{place}: id {article_id} appears twice: ids must be unique"))
        elif not text and (not title or cfg.titles == "none"):
            unusable(InputError(f"{place}: article {article_id} has no text"))
        else:
            seen.add(article_id)
            yield article_id, title, text
    if seen and not has_titles and usual_name(cfg.title_field) != usual_name("title"):
        raise InputError(
            f"{cfg.passages}: no title was read from title_field={cfg.title_field}: name it among the fields that are "
            f"read, too, as in text_fields=[{cfg.title_field},text]"
        )


def article_cutter(cfg: DictConfig) -> Callable[[str, str, str], list[dict[str, str]]]:
    """Return a function from an article's id, title and text to its rows."""
    from distill.data.cutting import cut_text, passage_id
    from distill.sources.fields import checked_id
    from distill.teachers.lengths import atoms_of, tokens_in, words_in

    lengths_of = words_in
    if cfg.tokenizer is not None:
        from distill.models.parts import load_tokenizer

        tokenizer = load_tokenizer(cfg.tokenizer)
        if not tokenizer.is_fast:
            raise InputError(f"tokenizer={cfg.tokenizer}: does not say where its tokens are: choose another")
        lengths_of = functools.partial(tokens_in, tokenizer=tokenizer)

    def cut_article(article_id: str, title: str, text: str) -> list[dict[str, str]]:
        passages = cut_text(text, cfg.size, cfg.overlap, atoms_of, lengths_of, cfg.sentences) or [""]
        rows = []
        for number, passage in enumerate(passages):
            doc_id = checked_id(passage_id(article_id, number), f"{cfg.passages}: article {article_id}")
            shown = title if cfg.titles == "each" or (cfg.titles == "first" and number == 0) else ""
            rows.append({"_id": doc_id, "title": shown, "text": passage})
        return rows

    return cut_article


def describe(cfg: DictConfig) -> str:
    """Return the first line of output."""
    unit = "words" if cfg.tokenizer is None else f"tokens of {cfg.tokenizer}"
    return f"cutting {cfg.passages} into passages of {cfg.size} {unit}, {cfg.overlap} of them repeated"


@hydra.main(config_path=str(ROOT / "conf"), config_name="cut", version_base="1.3")
def run(cfg: DictConfig) -> None:
    """Cut once; bad input ends with a one-line message and exit status 2."""
    run_command(cfg, describe, check_values, cut)
