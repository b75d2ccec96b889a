"""The verdict at the end of a recipe: is the student better than the first stage, and if not, why?

    verdict = judge(facts)
    print(verdict.text(command_line))       # "better than the first stage by 0.031 (p = 0.004) on 60 held-out queries"

Judgments count most, those of people before an LLM's. Without any, the agreement with the teacher is all there is: then
the student is better only if the teacher is right, and the verdict says so. It is that of a recipe with all its stages;
what a single training run says of itself at its end is in distill/training/verdict.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from distill.evaluation.significance import p_in_words
from distill.report.facts import Compared, Facts
from distill.report.reasons import Reason, likeliest


@dataclass(frozen=True)
class Verdict:
    """Whether a student is better than its first stage, with the reasons that it may not be."""

    is_better: bool
    line: str
    reasons: tuple[Reason, ...]
    numbers: dict[str, Any]

    def text(self, as_line: Callable[..., str]) -> str:
        """Return the verdict as lines of Markdown; as_line: returns a command of name and overrides as it is typed."""
        lines = [f"**Verdict**: {self.line}."]
        if self.reasons:
            lines += ["", "The likeliest reasons, the one to mend first on top:", ""]
        for number, reason in enumerate(self.reasons, start=1):
            lines += [f"{number}. {reason.text[:1].upper()}{reason.text[1:]}.", ""]
            lines += [f"   ```\n   {as_line(*command)}\n   ```\n" for command in reason.commands]
        return "\n".join(lines) + "\n"

    def as_json(self, as_line: Callable[..., str]) -> dict[str, Any]:
        """Return the verdict as an object for other programs."""
        reasons = [
            {
                "name": one.name,
                "found": one.is_found,
                "text": one.text,
                "commands": [as_line(*command) for command in one.commands],
            }
            for one in self.reasons
        ]
        return {"better": self.is_better, "verdict": self.line, **self.numbers, "reasons": reasons}


def judge(facts: Facts) -> Verdict:
    """Return the verdict on what is known."""
    best = facts.best
    if best is None:
        line = "none: no held-out query was measured"
        return Verdict(False, line, tuple(likeliest(facts)), {})
    is_better, line = best.is_better, _in_words(facts, best)
    if is_better and facts.judged is None and facts.is_noise:
        is_better, line = False, f"not better than the first stage, as far as is known: it only repeats noise; {line}"
    numbers = {
        "measure": best.measure,
        "by": facts.judged_by if facts.judged else "agreement",
        "queries": len(best.first),
        "difference": best.difference,
        "p": best.p,
    }
    reasons = () if is_better else tuple(likeliest(facts))
    return Verdict(is_better, line, reasons, numbers)


def _in_words(facts: Facts, best: Compared) -> str:
    on = f"on {len(best.first)} held-out queries"
    if facts.judged is None:
        by, why = "by agreement with the teacher", "no query is judged"
        if facts.one_grade is not None:
            why = f"{facts.one_grade} gave every passage the same grade, which judges nothing"
        condition = f"; {why}, so this holds if the teacher is right"
    else:
        by, condition = f"by {facts.judged_by}", ""
    means = best.beside().rpartition(",")[0]
    if best.is_better:
        by_what = f"by {best.difference:.3f} ({p_in_words(best.p)})"
        return f"better than the first stage {by_what} {on}, {by}: {means}{condition}"
    word = "worse than" if best.difference < 0 and best.p < 0.05 else "not better than"
    return f"{word} the first stage {on}, {by}: {means} ({best.difference:+.3f}, {p_in_words(best.p)}){condition}"
