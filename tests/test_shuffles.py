"""Permutation self-consistency: several orders of a window, merged by the sums of ranks."""

import re

import pytest

from distill.commands.annotate import check
from distill.errors import InputError
from distill.teachers.answer import Answer
from distill.teachers.journal import Journal
from distill.teachers.listwise import WindowRanker, Windows, estimate
from distill.teachers.prompt import read_prompt
from distill.teachers.shuffles import order_by_ranks, shuffled
from tests.helpers.configuration import compose_config
from tests.helpers.paths import ROOT

PROMPT = read_prompt(str(ROOT / "distill" / "teachers" / "prompts" / "listwise.yaml"))


def test_ranks_are_summed():
    assert order_by_ranks([[2, 0, 1], [2, 1, 0]]) == [2, 0, 1]  # 0 and 1 tie
    assert order_by_ranks([[3, 1, 2, 0], [1, 3, 0, 2], [3, 0, 1, 2]]) == [3, 1, 0, 2]  # sums 6, 3, 8, 1


def test_orders_are_the_same_in_every_run():
    assert shuffled(5, 0) == [0, 1, 2, 3, 4] and shuffled(5, 1) == [4, 3, 2, 1, 0]
    assert shuffled(20, 2) == shuffled(20, 2) != shuffled(20, 3) and sorted(shuffled(20, 2)) == list(range(20))


class Biased:
    """An engine that puts the passage shown first on top, and orders the others rightly; passages are numbers."""

    in_batches, at_once, options, tokenizer = True, 4, {}, None

    def __init__(self):
        self.asked = 0

    def ask(self, requests):
        self.asked += len(requests)
        return [Answer(self._order(messages[-1]["content"]), 1, 1, 0.0) for messages in requests]

    @staticmethod
    def _order(text: str) -> str:
        found = [int(number) for number in re.findall(r"^\[\d+\] (\d+)$", text, re.MULTILINE)]
        places = [0, *sorted(range(1, len(found)), key=found.__getitem__)]
        return " > ".join(f"[{place + 1}]" for place in places)


def rank(tmp_path, shuffles: int):
    engine, lists = Biased(), {"q": ("least", [str(number) for number in (9, 3, 7, 1, 5, 8)])}
    windows = Windows("listwise", 6, 3, 1, shuffles)
    with Journal(tmp_path / f"{shuffles}.jsonl") as journal:
        ranker = WindowRanker(engine, "m", journal, PROMPT, windows, 1)
        ((_, order, flagged, _),) = ranker.rank(lists, lambda totals: True)
    assert not flagged and engine.asked == estimate(lists.values(), PROMPT, windows)[0] == shuffles
    return [int(lists["q"][1][place]) for place in order]


def test_several_orders_undo_a_bias_towards_the_passage_shown_first(tmp_path):
    assert rank(tmp_path, 1) == [9, 1, 3, 5, 7, 8]
    merged = rank(tmp_path, 7)
    assert merged[:2] == [1, 3] and merged.index(9) >= 3


@pytest.mark.parametrize("key, what", [("shuffles", "to shuffle"), ("passes", "to pass over again")])
def test_what_is_done_to_windows_is_refused_without_them(key, what):
    files = ["passages=p", "queries=q", "run=r", "teacher.llm.model=m", f"{key}=3"]
    check(compose_config("annotate", *files))
    for method in ("graded", "pointwise", "setwise", "pairwise"):
        with pytest.raises(InputError, match=f"{key}=3 with method={method}: it has no windows {what}"):
            check(compose_config("annotate", *files, f"method={method}"))
