"""Why a student is not better than its first stage: one rule for each reason that there may be.

    for reason in likeliest(facts): print(reason.text, [command_line(*command) for command in reason.commands])

A rule looks at what was measured and returns a reason, or None where it is ruled out. The rules are in the order in
which one thing leads to another: a model that cannot read the language makes all that follows fail, and a teacher that
is noise cannot be agreed with. So the first reason found is the one to mend first. Reasons that nothing was measured
about follow, with the command that measures them.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from distill.config.overrides import as_override, field_overrides
from distill.data.teacher_lists import ENOUGH
from distill.report.facts import Facts
from distill.sources.texts import MAX_UNKNOWN

MAX_PIECES = 1.6  # tokens of a word, in another language than English: 1.0 to 1.3 where the tokenizer knows it
ENOUGH_HELDOUT = 50  # queries
MOST_TIMES = 10  # a difference that needs so many times more queries is too small to look for
SHOWN = 3


Command = tuple[str, ...]  # name and overrides, as distill.jobs.command_line takes them


@dataclass(frozen=True)
class Reason:
    """What may be why, and the commands that check or mend it."""

    name: str
    text: str
    commands: tuple[Command, ...]
    is_found: bool = True  # False: nothing was measured that says so, or that rules it out


def likeliest(facts: Facts, most: int = SHOWN) -> list[Reason]:
    """Return the reasons that are not ruled out, those that were found first."""
    open_ = [reason for rule in RULES if (reason := rule(facts))]
    return sorted(open_, key=lambda reason: not reason.is_found)[:most]


def wrong_language(facts: Facts) -> Reason | None:
    """The student cannot read the passages."""
    mend = (_train(facts, "-mmbert", "backbone=mmbert-base"),)
    if facts.unknown_tokens is None:
        return None
    if facts.unknown_tokens > MAX_UNKNOWN:
        text = (
            f"{facts.unknown_tokens:.0%} of the passages' tokens are unknown to {facts.backbone}: it cannot read them"
        )
        return Reason("language", text, mend)
    if facts.language not in (None, "english") and (facts.pieces or 0) > MAX_PIECES:
        text = (
            f"the passages are in {facts.language.capitalize()}, of which {facts.backbone} knows few words: it reads a "
            f"word in {facts.pieces:.1f} pieces"
        )
        return Reason("language", text, mend)
    return None


def noisy_teacher(facts: Facts) -> Reason | None:
    """The teacher orders passages by chance, or by the place where they are shown."""
    if facts.is_noise:
        where = facts.noise_directory or facts.directory
        text = (
            f"the teacher is noise: shown the same passages in another order, it ranks them anew (Kendall's tau "
            f"{facts.shuffles:.2f}, where 0 is chance)"
        )
        look = ("inspect", as_override("run", str(where)))
        return Reason("teacher-noise", text, (look, _annotate(facts, "teacher.llm.model=...")))
    if facts.is_noise is None and not facts.ranks_pairs:
        text = "the teacher may be noise: it was not shown the same passages in two orders"
        return Reason("teacher-noise", text, (_annotate(facts, "num_queries=20", "shuffles=2"),), is_found=False)
    return None


def useless_judge(facts: Facts) -> Reason | None:
    """The judge cannot tell passages apart."""
    if facts.one_grade is None:
        return None
    text = f"{facts.one_grade} gave every passage the same grade, so its judgments tell nothing"
    return Reason("judge", text, (_judge(facts),))


def few_queries(facts: Facts) -> Reason | None:
    """There is too little to learn from."""
    if facts.num_lists is None or facts.num_lists >= ENOUGH:
        return None
    text = f"{facts.num_lists} training queries are too few: some {ENOUGH} are enough to begin with"
    more = ("generate", _of(facts, "passages"), f"num_queries={2 * ENOUGH}", "teacher.llm.model=...")
    return Reason("few-queries", text, (more,))


def weak_teacher(facts: Facts) -> Reason | None:
    """The teacher ranks no better than the first stage, so nothing can be gained from it."""
    if facts.teacher is None:
        text = "the teacher may be no better than the first stage: no held-out query says so"
        measure = ("annotate", _of(facts, "passages"), "queries=...", "run=...", "qrels=...")
        return Reason("weak-teacher", text, (measure if facts.judged else _judge(facts),), is_found=False)
    if facts.teacher.is_better:
        return None
    text = f"the teacher ranks no better than the first stage either: {facts.teacher.beside()}"
    commands = [("inspect", as_override("run", str(place))) for place in facts.teacher_directories]
    deeper = ("retrieve", "method=dense", "model=...", _of(facts, "passages"), _of(facts, "queries"), *_fields(facts))
    is_found = facts.teacher.difference <= 0 or len(facts.teacher.first) >= ENOUGH_HELDOUT
    return Reason("weak-teacher", text, (*commands[-1:], deeper), is_found=is_found)


def flat_loss(facts: Facts) -> Reason | None:
    """Training went nowhere."""
    if not facts.loss:
        return None
    return Reason("loss", facts.loss, (_train(facts, "-longer", *_longer(facts)),))


def unlike_teacher(facts: Facts) -> Reason | None:
    """The student has not learned to rank like the teacher."""
    if facts.agreement is None or facts.agreement.is_better:
        return None
    text = f"the student is no closer to the teacher than the first stage: {facts.agreement.beside()}"
    return Reason("unlike-teacher", text, (_train(facts, "-longer", *_longer(facts)),))


def few_heldout(facts: Facts) -> Reason | None:
    """The held-out queries are too few to tell."""
    compared = facts.best
    if compared is None:
        return None
    number, needed = len(compared.first), compared.needed
    if number >= ENOUGH_HELDOUT and (
        compared.difference <= 0 or needed is None or not number < needed <= MOST_TIMES * number
    ):
        return None  # they are many, or would have to be so many that the difference does not matter
    text = f"{number} held-out queries are too few to tell"
    if number > 1 and compared.visible > 0:
        text += f": they show a difference of {compared.visible:.3f} or more"
        if compared.difference > 0 and needed is not None and needed > number:
            text += f", and the one found, {compared.difference:.3f}, needs some {needed}"
    more = ("split", "queries=...", "heldout=0.3", as_override("output", f"{facts.directory!s}/split-larger"))
    return Reason("few-heldout", text, (more,))


RULES: tuple[Callable[[Facts], Reason | None], ...] = (
    *(wrong_language, noisy_teacher, few_queries, weak_teacher, flat_loss, unlike_teacher, useless_judge, few_heldout),
)


def _longer(facts: Facts) -> tuple[str, ...]:
    """Return the overrides of a training that is twice as long."""
    steps = 2 * facts.num_steps if facts.num_steps else 600
    return (f"train.max_steps={steps}", "train.max_epochs=null")


def _train(facts: Facts, suffix: str, *changed: str) -> Command:
    """Return the command that trains another student on the same lists."""
    given = [_of(facts, key, f"data.{key}") for key in ("passages", "queries")]
    given += [_of(facts, f"teacher.{key}", f"teacher.{key}") for key in ("path", "first_stage")]
    given += _fusion(facts)
    if not any(one.startswith("backbone=") for one in changed):
        given += ["backbone=hf", _of(facts, "backbone.name", "backbone.name")]
    data, loss = facts.student.get("data", {}), facts.student.get("loss", {})
    given += [*_fields(facts, "data."), f"data.depth={data.get('depth') or 'null'}"]
    if "parts" not in loss and not any(one.startswith("loss=") for one in changed):
        given += [_of(facts, "loss.name", "loss")]
    place = str(facts.student_directory) if facts.student_directory else "outputs/student"
    output = as_override("hydra.run.dir", place + suffix)
    return ("train", "experiment=own-corpus", *changed, *given, output)


def _judge(facts: Facts) -> Command:
    """Return the command that lets another LLM judge."""
    return ("judge", _of(facts, "passages"), *_fields(facts), "queries=...", "runs=[...]", "teacher.llm.model=...")


def _annotate(facts: Facts, *changed: str) -> Command:
    given = [_of(facts, "passages"), _of(facts, "queries"), _of(facts, "teacher.first_stage", "run")]
    return ("annotate", *given, *_fields(facts), *changed)


def _fields(facts: Facts, prefix: str = "") -> list[str]:
    """Return the overrides that name the fields of the training's passages and queries."""
    return field_overrides(defaultdict(lambda: None, facts.student.get("data", {})), prefix)


def _fusion(facts: Facts) -> list[str]:
    """Return how the runs of a teacher are fused, where it has several."""
    teacher = facts.student.get("teacher", {})
    if isinstance(teacher.get("path"), str | None):
        return []
    fusion = {key: value for key, value in (teacher.get("fusion") or {}).items() if value is not None}
    return [f"teacher.fusion.{key}={str(value).replace(' ', '')}" for key, value in fusion.items()]


def _of(facts: Facts, key: str, name: str | None = None) -> str:
    """Return an override with a value of the training's configuration: of `data`, or a full key."""
    group, _, last = (key if "." in key else f"data.{key}").partition(".")
    value: Any = facts.student.get(group, {}).get(last)
    return as_override(name or key, value) if value is not None else f"{name or key}=..."
