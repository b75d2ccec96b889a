"""The data card of an annotation."""

from datetime import UTC, datetime
from pathlib import Path

from omegaconf import DictConfig

from distill.secrets import for_others
from distill.sources.run_files import Run
from distill.storage.quoting import to_markdown
from distill.teachers.prompt import ONE_BY_ONE
from distill.teachers.sorting import SORTS, Sorting
from distill.teachers.totals import Totals


def data_card(
    cfg: DictConfig, run: Run, flagged: dict[str, bool], totals, worth: list[tuple[str, str]], notes: list[str]
) -> str:
    """Return the text of card.md: the teacher, the first stage, the requests and the quality of the answers.

    worth: what the ranking is worth, as (name, text). notes: further remarks, one line each.
    """
    llm = cfg.teacher.llm
    lines = ["# Data card", "", f"- made: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, by the annotate command"]
    lines += [f"- teacher: {llm.model} ({llm.engine})", f"- first stage: {cfg.run}, its top {cfg.depth}"]
    lines += [f"- queries: {len(run)} of {cfg.queries}; passages: {sum(map(len, run.values()))} of {cfg.passages}"]
    if totals is not None:
        lines += [f"- prompt: {Path(cfg.prompt).name}, {totals.prompt}"]
        if cfg.method in SORTS:
            lines += [f"- sorting: {Sorting.of(cfg).describe()}"]
        elif cfg.method not in ONE_BY_ONE:
            lines += [f"- window {cfg.window}, stride {cfg.stride}, {cfg.passes} passes"]
            lines += [f"- {cfg.shuffles} orders of each window, merged by their ranks"] if cfg.shuffles > 1 else []
        lines += [f"- method: {cfg.method}, {totals.windows} windows"]
        lines += [f"- answers: {', '.join(f'{number} {kind}' for kind, number in sorted(totals.answers.items()))}"]
        lines += [
            f"- windows that kept their order because no answer was usable: {totals.unanswered}, in "
            f"{sum(flagged.values())} lists"
        ]
        if totals.consistency.num_windows:
            shown = f"{totals.consistency.num_as_shown} of {totals.consistency.num_windows}"
            lines += [f"- answers that leave the passages in the order shown: {shown}"]
        if totals.tied:
            lines += [f"- lists with more than half of their scores equal, which teaches no order: {totals.tied}"]
        if totals.refused:
            lines += [f"- windows whose request was refused: {totals.refused}"]
        if totals.shortened:
            lines += [f"- windows asked with shorter passages, since they were too long: {totals.shortened}"]
        lines += request_lines(totals, llm)
    lines += [f"- {note}" for note in notes]
    lines += [f"- {name}: {text}" for name, text in worth]
    return for_others("\n".join(to_markdown(line, with_code=True) for line in lines) + "\n")


def request_lines(totals: Totals, llm: DictConfig) -> list[str]:
    """Return the lines about requests: what was changed in them, their number and tokens, retries, cost."""
    failures = ", ".join(f"{number} {kind}" for kind, number in sorted(totals.failures.items()))
    lines = [f"- parameters: {change}" for change in totals.adapted]
    lines += [f"- requests: {totals.describe(llm)}; answers took {totals.seconds:.0f} seconds"]
    lines += [f"- retries in the last run: {totals.failures.total()}" + (f" ({failures})" if failures else "")]
    if totals.cost(llm):
        lines += [f"- cost: {totals.cost(llm):.4f} at {llm.price_in} and {llm.price_out} per million tokens"]
    return lines
