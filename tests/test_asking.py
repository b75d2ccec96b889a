"""When an annotation stops, what it then says, and which of its answers another method may read."""

import pytest

from distill.errors import InputError
from distill.teachers.answer import Answer
from distill.teachers.journal import Journal
from distill.teachers.listwise import WindowRanker, Windows
from distill.teachers.prompt import read_prompt
from distill.teachers.sorting import Sorting
from distill.teachers.totals import Limits, Totals
from tests.helpers.configuration import compose_config


def test_a_run_that_was_stopped_as_useless_says_so_though_late_answers_were_good(tmp_path):
    cfg = compose_config("annotate", "passages=p", "queries=q", "run=r", "teacher.llm.model=m", "max_unusable=0.5")
    limits, totals = Limits(cfg.teacher.llm, cfg.max_unusable, 40), Totals(windows=16, unanswered=9)
    totals.useless["no text"] = 9
    assert not limits.allow(totals)
    totals.windows = 19  # answers that were on their way
    assert not totals.is_useless(0.5, 40) and not limits.allow(totals)
    said = "9 of 19 windows got no usable answer", "max_cost=1.0: reached", "resume=DIR"
    with pytest.raises(InputError, match="9 of 19 windows got no usable answer: .*raise max_unusable and resume with"):
        limits.check_whole(totals, *said, is_whole=False)
    limits.check_whole(totals, *said, is_whole=True)  # it ended before it could stop


@pytest.mark.parametrize(
    ("refused", "entries", "remedy"),
    [
        (9, [("a refusal: maximum context length is 8192", None, 0)] * 9, "check teacher.llm, or"),
        (0, [("Their length differs", None, 7)] * 9, "try another prompt or model, or"),
        (0, [("Ye", "length", 1)] * 9, "try another prompt or model, or"),  # one token was asked for
        (0, [("<think> well", "length", 64)] * 9, "raise teacher.llm.max_tokens, or turn the model's thinking off"),
    ],
)
def test_the_remedy_follows_from_what_came_back(refused, entries, remedy):
    cfg = compose_config("annotate", "passages=p", "queries=q", "run=r", "teacher.llm.model=m", "max_unusable=0.5")
    limits, totals = Limits(cfg.teacher.llm, cfg.max_unusable, 9), Totals(windows=9, unanswered=9)
    for text, finish, tokens_out in entries[refused:]:
        entry = {"text": text, "finish": finish, "tokens_in": 5, "tokens_out": tokens_out, "seconds": 0.0}
        totals.count(entry, {"unusable"}, is_new=True)
    for text, _, _ in entries[:refused]:
        totals.count_refusal(text)
    with pytest.raises(InputError, match=f"useless: {remedy}"):
        limits.check_whole(totals, "useless", "spent", "resume=DIR", is_whole=True)


class Counting:
    """An engine that answers with the passage that is named first, and counts its requests."""

    in_batches, at_once, options, tokenizer = True, 4, {}, None

    def __init__(self, answer: str):
        self.answer, self.asked = answer, []

    def ask(self, requests):
        self.asked += [messages[-1]["content"] for messages in requests]
        return [Answer(self.answer, 1, 1, 0.0) for _ in requests]


@pytest.mark.parametrize(
    ("windows", "answer", "passages"),
    [
        (Sorting("pairwise", None, "all", 2, False), "A", ["ant", "bee", "cat", "bee", "dog"]),
        (Windows("listwise", 20, 10, 1, shuffles=5), "[1] > [2]", ["ant", "bee"]),
    ],
)
def test_no_request_is_made_twice_for_one_list(tmp_path, windows, answer, passages):
    engine = Counting(answer)
    with Journal(tmp_path / "journal.jsonl") as journal:
        ranker = WindowRanker(engine, "m", journal, read_prompt(windows.method, windows.method), windows, 1)
        list(ranker.rank({"q": ("query", passages)}, lambda totals: True))
    assert engine.asked and len(engine.asked) == len(set(engine.asked))


def test_a_grade_is_not_read_from_the_answer_to_a_question_by_yes_and_no(tmp_path):
    class Yes:
        in_batches, at_once, options, tokenizer = True, 4, {}, None

        def ask(self, requests):
            return [Answer("Yes", 1, 1, 0.0, score=2.5) for _ in requests]

    prompt = read_prompt("pointwise", "pointwise")
    with Journal(tmp_path / "journal.jsonl") as journal:
        for method in ("pointwise", "graded", "graded"):
            ranker = WindowRanker(Yes(), "m", journal, prompt, Windows(method, 20, 10, 1), 1)
            list(ranker.rank({"q": ("query", ["passage"])}, lambda totals: True))
        assert len(journal.answers) == 2
