"""When an annotation stops, what it then says, and which of its answers another method may read."""

import pytest

from distill.errors import InputError
from distill.teachers.answer import Answer
from distill.teachers.asking import _check_whole
from distill.teachers.journal import Journal
from distill.teachers.listwise import WindowRanker, Windows
from distill.teachers.prompt import read_prompt
from distill.teachers.totals import Limits, Totals
from tests.helpers.configuration import compose_config


def test_a_run_that_was_stopped_as_useless_says_so_though_late_answers_were_good(tmp_path):
    cfg = compose_config("annotate", "passages=p", "queries=q", "run=r", "teacher.llm.model=m", "max_unusable=0.5")
    limits, totals = Limits(cfg.teacher.llm, cfg.max_unusable, 40), Totals(windows=16, unanswered=9)
    totals.useless["no text"] = 9
    assert not limits.allow(totals)
    totals.windows = 19  # answers that were on their way
    assert not totals.is_useless(0.5, 40) and not limits.allow(totals)
    with pytest.raises(InputError, match="9 of 19 windows got no usable answer, more than .*; what came back: 9 × no"):
        _check_whole(cfg, tmp_path, totals, limits, 19, 40)
    _check_whole(cfg, tmp_path, totals, limits, 40, 40)  # it ended before it could stop


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
