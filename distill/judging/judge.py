"""Let an LLM grade each passage of a pool for its query, from 0 to 3.

    print(estimate(cfg, pool))
    judged = judge(cfg, directory, pool)
    judged.grades                                   # {Pair("q1", "d7"): 2, Pair("q1", "d9"): None}

What gets no usable answer has no grade: None. It is counted, and never guessed.
"""

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from distill.judging.answers import grade_in
from distill.judging.pool import Pair, Pool
from distill.teachers.answer import num_tokens
from distill.teachers.asking import describe_requests
from distill.teachers.journal import key_of_request
from distill.teachers.prompt import Prompt, read_prompt
from distill.teachers.questions import Questions, Wording
from distill.teachers.side_by_side import Steps
from distill.teachers.totals import Totals

NAME = "judge"  # of the prompt, among those with other methods
WORDING = Wording("judging", "grades from 0 to 3")
ANSWER = 5  # tokens of "grade: 2"

Texts = tuple[str, str]  # of a query and a passage


@dataclass
class Judged:
    """The grade of each pair, and what the requests took."""

    grades: dict[Pair, int | None]
    totals: Totals
    prompt: str  # its digest


def estimate(cfg: DictConfig, pool: Pool) -> str:
    """Return, in words, the requests and tokens that the grades will take, and their cost if prices are set."""
    prompt, asked = read_prompt(cfg.prompt, NAME), distinct(pool)
    tokens_in = sum(num_tokens(prompt.fill(query, [text])) for query, text in asked)
    tokens_out = len(asked) * (cfg.teacher.llm.max_tokens if prompt.thinks else ANSWER)
    requests = describe_requests(cfg.teacher.llm, len(asked), tokens_in, tokens_out, thinks=prompt.thinks)
    return f"{len(pool.queries)} queries, {len(pool.pairs)} passages, {requests}"


def distinct(pool: Pool) -> dict[Texts, list[Pair]]:
    """Return the pairs by their texts, which are asked about once, in the order of the first ones."""
    asked: dict[Texts, list[Pair]] = {}
    for pair in pool.pairs:
        asked.setdefault(pool.texts(pair), []).append(pair)
    return asked


def judge(cfg: DictConfig, directory: Path, pool: Pool) -> Judged:
    """Ask for all grades; raises InputError if max_cost is reached, and if too many answers are no grades."""
    prompt, asked = read_prompt(cfg.prompt, NAME), [*distinct(pool).items()]
    with Questions(cfg, directory, {NAME: prompt.digest}, WORDING, len(asked)) as questions:
        found = questions.ask(
            [(str(place), _steps(questions, prompt, *texts)) for place, (texts, _) in enumerate(asked)]
        )
    of_pair = {pair: found[str(place)] for place, (_, pairs) in enumerate(asked) for pair in pairs}
    return Judged({pair: of_pair[pair] for pair in pool.pairs}, questions.totals, prompt.digest)


def _steps(questions: Questions, prompt: Prompt, query: str, text: str) -> Steps:
    """Yield the messages of a request until its answer has a grade; return it, None without one."""
    engine, grade = questions.engine, None
    for attempt in range(questions.cfg.tries):
        key = key_of_request(questions.llm.model, engine.options, prompt.digest, query, [text], attempt)
        entry, is_new = yield from questions.requests[NAME].ask(
            key, lambda shorter: prompt.fill(query, [text], shorter, engine.tokenizer)
        )
        if entry is None:
            break
        grade = grade_in(entry["text"], prompt.answer_tag, is_cut=entry.get("finish") == "length")
        questions.count(entry, is_new, is_usable=grade is not None)
        if grade is not None:
            break
    questions.end_question(is_answered=grade is not None)
    return grade
