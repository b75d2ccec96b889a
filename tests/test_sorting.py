"""Setwise and pairwise ranking: the top in its true order, the requests for it, and what unclear answers do."""

import math
import random
import re
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.commands.annotate import check
from distill.errors import InputError
from distill.teachers.answer import Answer
from distill.teachers.asking import ask_llm, estimate_requests
from distill.teachers.data_card import data_card
from distill.teachers.journal import Journal
from distill.teachers.letters import named_letter
from distill.teachers.listwise import WindowRanker, estimate
from distill.teachers.prompt import read_prompt
from distill.teachers.sorting import Sorting
from distill.teachers.totals import Totals
from tests.helpers.configuration import compose_config
from tests.helpers.paths import ROOT
from tests.helpers.raw_server import RawServer, completion, respond

SORTINGS = [("setwise", "heap"), ("pairwise", "heap"), ("pairwise", "bubble"), ("pairwise", "all")]
FILES = ["passages=p", "queries=q", "run=r", "teacher.llm.model=m"]


def sorted_by(goodness: list[int], method: str, sort: str, top: int | None, set_size: int = 3, answer=None):
    """Sort places by a judge that knows how good each is; return the order and the number of questions."""
    answer = answer or (lambda places: max(range(len(places)), key=lambda index: goodness[places[index]]))
    steps, found = Sorting(method, top, sort, set_size, False).steps(len(goodness)), None
    known: dict[tuple[int, ...], int | None] = {}
    try:
        while True:
            questions = [tuple(places) for places in steps.send(found)]
            known |= {places: answer(places) for places in questions if places not in known}
            found = [known[places] for places in questions]
    except StopIteration as end:
        return end.value, len(known)


@pytest.mark.parametrize(("method", "sort"), SORTINGS)
@given(goodness=st.integers(1, 30).flatmap(lambda n: st.permutations(range(n))), data=st.data())
def test_a_judge_without_mistakes_puts_the_top_in_its_true_order(method, sort, goodness, data):
    top = data.draw(st.none() | st.integers(1, 35))
    set_size = data.draw(st.integers(2, 7))
    order, number = sorted_by(goodness, method, sort, top, set_size)
    true = sorted(range(len(goodness)), key=lambda place: -goodness[place])
    depth = len(true) if top is None or sort == "all" else min(top, len(true))
    assert order[:depth] == true[:depth] and order[depth:] == sorted(true[depth:])
    sorting = Sorting(method, top, sort, set_size, False)
    most = sorting.num_windows(len(goodness))
    assert number == most if sorting.is_exact else number <= most


@pytest.mark.parametrize(("method", "sort"), SORTINGS)
@given(num=st.integers(0, 12), top=st.integers(1, 12), seed=st.integers(0, 2**32))
def test_whatever_is_answered_each_passage_is_ranked_once_within_the_bound(method, sort, num, top, seed):
    generator = random.Random(seed)
    answers = lambda places: generator.choice([None, *range(len(places))])  # noqa: E731
    order, number = sorted_by([0] * num, method, sort, top, answer=answers)
    assert sorted(order) == list(range(num)) and number <= Sorting(method, top, sort, 3, False).num_windows(num)


@pytest.mark.parametrize(
    ("method", "sort", "top", "goodness", "number", "most"),
    [
        # A heap of 7, two children each: the best first, nodes 2, 1 and 0 ask once each; the root could sink two levels
        ("setwise", "heap", 1, [7, 6, 5, 4, 3, 2, 1], 3, 4),
        # Then the last takes the root of 6 and sinks two levels
        ("setwise", "heap", 2, [7, 6, 5, 4, 3, 2, 1], 5, 6),
        # The worst first: 2 puts 7 above 3, 1 puts 5 above 2, the root sinks below 7 and then asks once more
        ("setwise", "heap", 1, [1, 2, 3, 4, 5, 6, 7], 4, 4),
        # Two comparisons at each node, two requests each; the last node of 5 has both children, of 4 one
        ("pairwise", "heap", 1, [5, 4, 3, 2, 1], 8, 12),
        ("pairwise", "all", 10, [1, 2, 3, 4, 5], 20, 20),  # 5 · 4
        # A pass from the bottom asks for 4 pairs, the next for 3; in order, the second asks for nothing new
        ("pairwise", "bubble", 1, [5, 4, 3, 2, 1], 8, 8),
        ("pairwise", "bubble", 2, [5, 4, 3, 2, 1], 8, 14),
        # The worst first: the first pass takes the best up past 4, the second the next past 3, all new
        ("pairwise", "bubble", 2, [1, 2, 3, 4, 5], 14, 14),
        ("pairwise", "bubble", None, [2, 1], 2, 2),
    ],
)
def test_requests_are_as_many_as_worked_by_hand(method, sort, top, goodness, number, most):
    assert sorted_by(goodness, method, sort, top)[1] == number
    assert Sorting(method, top, sort, 3, False).num_windows(len(goodness)) == most


def test_the_requests_for_100_passages_are_those_of_the_documentation():
    page = (ROOT / "docs" / "teachers.md").read_text()
    numbers = [Sorting(*one, False).num_windows(100) for one in (("setwise", 10, "heap", size) for size in (4, 10, 20))]
    numbers += [Sorting("pairwise", 10, sort, 4, False).num_windows(100) for sort in ("heap", "bubble", "all")]
    assert numbers == [85, 40, 25, 600, 1890, 9900]
    assert "finds the top 10 | 85 at most |" in page and "with 10, at most 40 requests; with 20, at most 25." in page
    assert all(f"| {number} |" in page for number in ("600 at most", "1,890 at most", "9,900"))
    means = []
    for method in ("setwise", "pairwise"):
        lists = [random.Random(seed).sample(range(100), 100) for seed in range(20)]
        means.append(sum(sorted_by(one, method, "heap", 10, 4)[1] for one in lists) / len(lists))
    assert means == pytest.approx([80, 530], abs=5) and "some 80 of the 85, and 530 of the 600." in page


def test_a_pair_that_is_answered_by_its_order_is_a_tie_and_keeps_the_first_stages_order():
    for sort in ("heap", "bubble", "all"):
        assert sorted_by([0] * 6, "pairwise", sort, None, answer=lambda places: 0)[0] == list(range(6))
        assert sorted_by([0] * 6, "pairwise", sort, None, answer=lambda places: None)[0] == list(range(6))


def test_half_a_win_each_counts_among_all_pairs():
    """0 wins over 1, 1 over 2, and 0 and 2 tie: 1.5, 1 and 0.5 wins; 2 over 0 and 0 over 1 instead: 1, 0.5, 1.5."""
    beats = {(0, 1): 0, (1, 0): 1, (1, 2): 0, (2, 1): 1, (0, 2): 0, (2, 0): 0}
    assert sorted_by([0] * 3, "pairwise", "all", None, answer=beats.get)[0] == [0, 1, 2]
    beats |= {(0, 2): 1, (2, 0): 0, (1, 2): 0, (2, 1): 0}
    assert sorted_by([0] * 3, "pairwise", "all", None, answer=beats.get)[0] == [2, 0, 1]


def test_a_set_without_an_answer_stays_as_it_is():
    assert sorted_by([1, 2, 3], "setwise", "heap", None, answer=lambda places: None)[0] == [0, 2, 1]
    # The root of three is not judged; the last then takes its place and is judged against the other


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("B", 1),
        ("b", 1),
        ("**[B]**", 1),
        ("Passage B.", 1),
        ("The answer is: (C)", 2),
        ("B) since it says when bees dance.", 1),
        ("B\nPassage A is about trains.", 1),
        ("The best is passage D, which answers in full.", 3),
        ("<think>Passage A? No, passage C.</think>\nD", 3),
        ("答案：B", 1),
        ("(B)", 1),
        ("**B**", 1),
        ("B.", 1),
        ('The letter of the passage that answers better is "B".', 1),
        ("B, since it says when bees dance.", 1),
        ("A passage about bees would be best.", None),
        ("Passage B is not relevant.", None),
        ("Passage B is about trains.", None),
        ("The worst is passage B.", None),
        ("Not: B", None),
        ("A, B and D are all good.", None),
        ("B, C", None),
        ("Best: A, second best: B", None),
        ("1st: A, 2nd: B", None),
        ("Best: A; runner-up: C", None),
        ("Result: most relevant: B", 1),
        ("B. C. D.", None),
        ("B: better than (C), and (D) is best", None),
        ("The letter of the passage that answers better is A.", 0),
        ("The most relevant passage is B.", 1),
        ("Passage B isn't the best.", None),
        ("A. dance\nB. rails\nC. ants\nD. iron", None),  # the list repeated
        ("Passage A and passage B are equally good.", None),
        ("E", None),  # of four
        ("I cannot tell.", None),
        ("", None),
        ("<think>Passage A", None),
        (
            "Passage A covers the most common species of bees.\n"
            "Passage B explains how bees navigate, which is what the query is about.",
            None,
        ),
        ("Passage A answers a different question.", None),
        ("The passage that answers a different question is A.", None),
        ("The passage that answers the query is passage A.", 0),
        ("B, since it tells if bees dance.", 1),
        ("Passage A answers which beaches are best.", None),
        ("Passage A describes the best beaches of Spain. The query is about bees, so Passage C it is.", None),
        ("Passage A is best known for its beaches.", None),
        ("Is passage A the best?", None),
        ("Passage A would be the best if it named bees.", None),
        ("Passage B is better than passage A.", 1),
        ("Passage B is more relevant than passage A.", 1),
        ("The correct answer is passage B because it names bees.", 1),
        ("Passage B is clearly the most relevant to the query.", 1),
        ("B is the best.", 1),
        ("Passage C, which is on bees, is the best match.", 2),
        ("Passage B answers the query best.", 1),
        ("Passage B most directly answers the query.", 1),
        ("The passage that best answers the query is passage B because it names the sun.", 1),
        ("The best choice would be [C].", 2),
        ("I choose B.", 1),
        ("I would pick passage D, since it names bees.", 3),
        ("Passage A is better in style, but passage B is the most relevant.", None),
        ("Passage A is better. I choose B.", None),
        ("\\boxed{B}", 1),
        ("The answer is $\\boxed{\\text{B}}$.", 1),
        ("<answer>B</answer>", 1),
        ("Passage A is on bees.\n<answer>\nPassage B\n</answer>", 1),
        ("<answer>A</answer><answer>B</answer>", None),
        ("```text\nB\n```", 1),
    ],
)
def test_an_answer_names_one_letter_or_none(text, place):
    assert named_letter(text, 4) == place


@pytest.mark.parametrize(("text", "place"), [("B\nsince it", 1), ("Passage B is the best so far. But", None)])
def test_in_an_answer_that_was_cut_only_a_line_names_a_letter(text, place):
    assert named_letter(text, 4, is_cut=True) == place


@given(st.text(alphabet="AB [].:\n>passge", max_size=40), st.integers(2, 20))
def test_a_letter_is_one_of_the_passages(text, num_passages):
    assert named_letter(text, num_passages) in (None, *range(num_passages))


class Judge:
    """An engine that names the passage with the least number, by its letter; passages are numbers."""

    tokenizer = None

    def __init__(self, in_batches: bool = False, at_once: int = 4, stop_after: float = math.inf):
        self.in_batches, self.at_once, self.stop_after = in_batches, at_once, stop_after
        self.options = {"max_tokens": 1}
        self.asked: list[str] = []
        self.batches: list[int] = []
        self.lock = threading.Lock()

    def ask(self, requests):
        with self.lock:
            self.asked += [messages[-1]["content"] for messages in requests]
            self.batches.append(len(requests))
            if len(self.asked) > self.stop_after:
                raise InputError("the endpoint is gone")
        return [Answer(self._best(messages[-1]["content"]), 1, 1, 0.0) for messages in requests]

    @staticmethod
    def _best(text: str) -> str:
        return min(re.findall(r"^Passage ([A-T]): (\d+)$", text, re.MULTILINE), key=lambda one: int(one[1]))[0]

    def stop(self):
        """Nothing waits."""


def lists_of_numbers(num_lists: int = 3, depth: int = 12):
    return {
        f"q{n}": (f"least {n}", [str(i) for i in random.Random(n).sample(range(100), depth)]) for n in range(num_lists)
    }


def rank(path, engine, lists, sorting: Sorting):
    prompt = read_prompt(sorting.method, sorting.method)
    with Journal(path) as journal:
        ranker = WindowRanker(engine, "m", journal, prompt, sorting, 2)
        found = {query_id: (order, flagged) for query_id, order, flagged, _ in ranker.rank(lists, lambda totals: True)}
    return found, ranker.totals


@pytest.mark.parametrize("in_batches", [False, True])
@pytest.mark.parametrize(("method", "sort"), SORTINGS)
def test_lists_are_sorted_through_an_engine_and_nothing_is_asked_twice(tmp_path, method, sort, in_batches):
    engine, lists, sorting = Judge(in_batches), lists_of_numbers(), Sorting(method, 5, sort, 4, False)
    found, totals = rank(tmp_path / "a.jsonl", engine, lists, sorting)
    for query_id, (order, flagged) in found.items():
        numbers = [int(lists[query_id][1][place]) for place in order]
        assert numbers[:5] == sorted(numbers)[:5] and not flagged
    assert len(engine.asked) == len(set(engine.asked)) == totals.requests == totals.windows == totals.answers["whole"]
    most = estimate(lists.values(), read_prompt(method, method), sorting)[0]
    assert totals.requests == most if sort == "all" else totals.requests <= most


@pytest.mark.parametrize(("method", "sort"), SORTINGS)
def test_a_sorting_that_was_stopped_asks_only_for_what_is_missing(tmp_path, method, sort):
    lists, sorting = lists_of_numbers(), Sorting(method, 5, sort, 4, False)
    whole, totals = rank(tmp_path / "whole.jsonl", Judge(), lists, sorting)
    first, second = Judge(stop_after=20), Judge()
    with pytest.raises(InputError, match="the endpoint is gone"):
        rank(tmp_path / "stopped.jsonl", first, lists, sorting)
    resumed, _ = rank(tmp_path / "stopped.jsonl", second, lists, sorting)
    assert resumed == whole and 1 <= len(second.asked) == totals.requests - 20
    assert not set(first.asked[:20]) & set(second.asked)


def test_letters_that_are_written_and_letters_that_are_likeliest_have_keys_of_their_own(tmp_path):
    lists = lists_of_numbers(1, 4)
    rank(tmp_path / "a.jsonl", Judge(), lists, Sorting("pairwise", None, "all", 4, True))
    written = Judge()  # answers of one token, too
    rank(tmp_path / "a.jsonl", written, lists, Sorting("pairwise", None, "all", 4, False))
    assert len(written.asked) == 12


def test_requests_of_one_list_are_asked_side_by_side(tmp_path):
    engine = Judge(in_batches=True, at_once=8)
    rank(tmp_path / "a.jsonl", engine, lists_of_numbers(1, 9), Sorting("pairwise", None, "all", 4, False))
    assert engine.batches == [8] * 9  # 72 requests
    engine = Judge(in_batches=True, at_once=8)
    rank(tmp_path / "b.jsonl", engine, lists_of_numbers(1, 15), Sorting("setwise", 1, "heap", 3, False))
    assert engine.batches[0] == 4  # the lowest nodes with children


class Meeting(Judge):
    """A judge that answers only when four requests have come."""

    def __init__(self):
        super().__init__()
        self.gate = threading.Barrier(4, timeout=60)

    def ask(self, requests):
        self.gate.wait()
        return super().ask(requests)


def test_threads_take_requests_of_one_list_as_well(tmp_path):
    engine = Meeting()
    rank(tmp_path / "a.jsonl", engine, lists_of_numbers(1, 5), Sorting("pairwise", None, "all", 4, False))
    assert len(engine.asked) == 20


class Mute(Judge):
    """A judge that says nothing about some passages."""

    @staticmethod
    def _best(text: str) -> str:
        return "I cannot tell." if ": 7\n" in text else Judge._best(text)


def test_lists_with_an_unusable_answer_are_flagged_and_the_answer_is_asked_for_again(tmp_path):
    lists = {"q": ("least", ["3", "7", "1"]), "r": ("least of all", ["3", "2", "1"])}
    found, totals = rank(tmp_path / "a.jsonl", Mute(), lists, Sorting("pairwise", None, "all", 4, False))
    assert found == {"q": ([2, 1, 0], True), "r": ([2, 1, 0], False)}  # 7 ties with both: 0.5, 1 and 1.5 wins
    assert totals.unanswered == 4 and totals.requests == 12 + 4  # of two tries


def overrides(method: str, *more) -> list[str]:
    return [*FILES, f"method={method}", "teacher.llm.base_url=http://127.0.0.1:1/v1", *more]


def test_a_dry_run_says_how_many_requests_it_will_be_at_most():
    lists = {"q": ("bees", ["one two three four"] * 5)}
    assert "1 queries, 20 requests, " in estimate_requests(
        compose_config("annotate", *overrides("pairwise", "sort=all")), lists
    )
    assert "1 queries, at most 4 requests" in estimate_requests(
        compose_config("annotate", *overrides("setwise", "top=2")), lists
    )
    # Tokens are those of pairs, in sum; all passages are as long here
    prompt, pair = read_prompt("pairwise", "pairwise"), ["one two three four"] * 2
    one = estimate(lists.values(), prompt, Sorting("pairwise", None, "all", 4, False))[1] / 20
    letters = len("".join(message["content"] for message in prompt.fill("bees", pair))) / 4
    assert one == pytest.approx(letters, abs=2)


def test_the_card_says_how_lists_were_sorted():
    card = data_card(
        compose_config("annotate", *overrides("setwise")), {}, {"q": True}, Totals(windows=3, unanswered=1), {}, []
    )
    assert "- sorting: sets of 4, heapsort, the top 10 in order\n- method: setwise, 3 windows" in card
    sorting = Sorting.of(compose_config("annotate", *overrides("pairwise", "sort=all", "by_logprobs=true")))
    assert sorting.describe() == "pairs in both orders, wins over all others, all in order, by the likeliest letter"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["method=setwise", "set_size=21"], "set_size=21: passages have 20 letters at most"),
        (["method=setwise", "set_size=1"], "set_size=1: must be at least 2"),
        (["method=setwise", "sort=all"], "sort=all with method=setwise: it sorts by heap"),
        (["method=pairwise", "shuffles=2"], "shuffles=2 with method=pairwise: it has no windows to shuffle"),
        (["by_logprobs=true"], "by_logprobs=true with method=listwise: it is for setwise and pairwise"),
        (["method=pairwise", "sort=quick"], "sort=quick is unknown: choose one of heap, bubble, all"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(more, message):
    with pytest.raises(InputError, match=re.escape(message)):
        check(compose_config("annotate", *FILES, *more))


def test_few_answers_of_which_none_is_usable_end_the_run(tmp_path):
    server = RawServer(lambda connection, body, _: respond(connection, completion("I cannot tell.")))
    more = [f"teacher.llm.base_url={server.url}", "journal=none", "tries=1"]
    cfg = compose_config("annotate", *FILES, "method=setwise", *more)
    # Nodes 1 and 0 of five, then the root of 4, 3 and 2: five requests of at most six
    with pytest.raises(InputError, match="5 of 5 windows got no usable answer, more than max_unusable=0.5"):
        ask_llm(cfg, tmp_path, {"q": ("bees", ["a", "b", "c", "d", "e"])})
    server.close()
    assert len(server.bodies) == 5


@pytest.mark.parametrize("by_logprobs", [False, True])
def test_an_endpoint_is_asked_and_its_letter_is_read_from_text_or_from_logprobs(tmp_path, by_logprobs):
    def reply(connection, body, _):
        found = re.findall(r"^Passage ([A-T]): (\w+)$", body["messages"][-1]["content"], re.MULTILINE)
        best = max(found, key=lambda one: "abcd".index(one[1][0]))[0]
        likely = [{"token": token, "logprob": math.log(p)} for token, p in ((best, 0.6), ("A", 0.1), ("T", 0.3))]
        choice = {"logprobs": {"content": [{"top_logprobs": likely}]}} if by_logprobs else {}
        respond(connection, completion("T" if by_logprobs else f"**{best}**", choice=choice))

    server = RawServer(reply)
    more = [f"teacher.llm.base_url={server.url}", f"by_logprobs={str(by_logprobs).lower()}", "journal=none", "top=null"]
    cfg = compose_config("annotate", *FILES, "method=setwise", *more)
    orders, flagged, totals = ask_llm(cfg, tmp_path, {"q": ("bees", ["a1", "b2", "c3", "d4"])})
    server.close()
    assert orders == {"q": [3, 2, 1, 0]} and flagged == {"q": False} and totals.requests == len(server.bodies)
    assert all(("logprobs" in body) == by_logprobs for body in server.bodies)
    assert {body["max_tokens"] for body in server.bodies} == {1 if by_logprobs else 256}
