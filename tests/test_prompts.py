"""Prompts of rerankers: turns, order of parts and form of answer as each was trained, and a user's own words."""

import json
from types import SimpleNamespace

import pytest

from distill.errors import InputError
from distill.sources.permutations import mend_permutation
from distill.sources.thinking import answer_in_tag
from distill.teachers.answer import Answer
from distill.teachers.asking import estimate_requests
from distill.teachers.journal import Journal
from distill.teachers.listwise import WindowRanker, Windows
from distill.teachers.prompt import BUNDLED, read_prompt
from tests.helpers.configuration import compose_config

RERANKERS = ("rankgpt", "rankk", "rankvicuna", "rankzephyr", "reasonrank")
PASSAGES = ["Bees [2] dance.", "Trains follow rails."]
# As journals of earlier versions have them: with another digest, every answer would be paid for again
DIGESTS = {
    "first-token": "1bab9d04de476b99",
    "graded": "922f5e36d62aec7d",
    "listwise": "0907474d53921e8d",
    "pointwise": "3a44634ccbdb427c",
}


@pytest.mark.parametrize("name", DIGESTS)
def test_digests_are_those_of_earlier_versions(name):
    assert read_prompt(str(BUNDLED / f"{name}.yaml"), name).digest == DIGESTS[name]


@pytest.mark.parametrize("name", RERANKERS)
def test_a_rerankers_prompt_has_its_roles_and_order(name):
    messages = read_prompt(name).fill("how do bees dance", PASSAGES)
    roles = [message["role"] for message in messages]
    whole = "\n".join(message["content"] for message in messages)
    assert roles[0 if name in ("rankvicuna", "rankk") else 1 :] == (
        ["user", "assistant"] * 3 + ["user"] if name == "rankgpt" else ["user"]
    )
    assert (roles[0] == "system") == (name not in ("rankvicuna", "rankk"))
    queries = [place for place in range(len(whole)) if whole.startswith("how do bees dance", place)]
    first, last = whole.index("[1] Bees (2) dance."), whole.index("[2] Trains follow rails.")
    assert queries[0] < first < last and len(queries) == (1 if name == "rankk" else 2)
    assert all(query < first or query > last for query in queries)
    assert not any(place in whole for place in ("{query}", "{count}", "{number}", "{text}"))


def test_rankgpt_confirms_each_passage_and_ends_with_the_task():
    messages = read_prompt("rankgpt").fill("bees", PASSAGES)
    assert [messages[place]["content"] for place in (3, 4, 5, 6)] == [
        "[1] Bees (2) dance.", "I have passage [1].", "[2] Trains follow rails.", "I have passage [2].",
    ]  # fmt: skip
    assert "2 passages" in messages[1]["content"] and messages[-1]["content"].startswith("Query: bees.\nOrder the 2 ")


def test_parts_that_follow_exactly_keep_their_own_line_breaks():
    (message,) = read_prompt("rankvicuna").fill("bees", PASSAGES)
    assert "query: bees.\n\n[1] Bees (2) dance.\n[2] Trains follow rails.\nSearch query: bees.\n" in message["content"]
    (message,) = read_prompt("rankk").fill("bees", PASSAGES)
    assert message["content"].endswith("\n\nQuery: bees\n\n[1] Bees (2) dance.\n\n[2] Trains follow rails.\n\n")


def write(path, **parts):
    template = {"system": "", "before": "{query}", "passage": "[{number}] {text}", "after": "Rank.", "max_words": 300}
    path.write_text(json.dumps({name: part for name, part in (template | parts).items() if part is not None}))
    return str(path)


def test_a_users_file_carries_the_original_words_of_a_conversation(tmp_path):
    """The published form, with words that none of the bundled prompts has."""
    path = write(
        tmp_path / "own.yaml", system="S.", before="B {count} {query}.  ", before_reply="BR",
        passage=" P {number}: {text}", passage_reply="PR {number} ", after="A {query} {count}", exact=True,
    )  # fmt: skip
    assert [(one["role"], one["content"]) for one in read_prompt(path).fill("q", PASSAGES)] == [
        ("system", "S."),
        ("user", "B 2 q.  "),
        ("assistant", "BR"),
        ("user", " P 1: Bees (2) dance."),
        ("assistant", "PR 1 "),
        ("user", " P 2: Trains follow rails."),
        ("assistant", "PR 2 "),
        ("user", "A q 2"),
    ]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"passage": "{text}"}, "passage lacks {number}"),
        ({"before": ""}, "before and after lack {query}"),
        ({"passage_reply": "Yes."}, "give before_reply and passage_reply, or neither"),
        ({"before_reply": "Yes."}, "give before_reply and passage_reply, or neither"),
        ({"before_reply": "Yes.", "passage_reply": "Yes.", "after": ""}, "after is empty"),
        ({"answer_tag": "<answer>"}, "answer_tag=<answer>: give a name only"),
        ({"exact": "yes"}, "exact=yes: must be true or false"),
        ({"max_words": 0}, "max_words=0: must be a whole number"),
        ({"reply": "Yes."}, "expected exactly the keys after, before, max_words, passage, system, and of answer_tag, "),
        ({"system": None}, "expected exactly the keys"),
    ],
)
def test_a_template_that_cannot_work_is_refused_with_what_it_lacks(tmp_path, parts, message):
    with pytest.raises(InputError, match="own.yaml: ") as caught:
        read_prompt(write(tmp_path / "own.yaml", **parts))
    assert message in str(caught.value)


def test_a_name_is_a_bundled_prompt_unless_a_file_has_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_prompt("rankzephyr") == read_prompt(str(BUNDLED / "rankzephyr.yaml"))
    write(tmp_path / "rankzephyr", after="Mine.")
    assert read_prompt("rankzephyr").after == "Mine."
    with pytest.raises(
        InputError, match="rankzefir: no such file: give a prompt like .* or one of first-token, graded"
    ):
        read_prompt("rankzefir")


THOUGHT = "[1] > [2] > [3], as it seems: <answer>[1] > [2] > [3]</answer>?"


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        (f"<think>{THOUGHT}</think> <answer> [3] > [2] > [1] </answer>", "[3] > [2] > [1]"),
        (f"{THOUGHT} No.\n<Answer>[3] > [2] > [1]</ANSWER >\nI am sure.", "[3] > [2] > [1]"),
        ("<answer>[3] > [2] > [1]", "[3] > [2] > [1]"),  # the end of a turn takes the place of the closing tag
        ("[3] > [2] > [1]", "[3] > [2] > [1]"),
        (f"<think>{THOUGHT}", ""),
    ],
)
def test_the_answer_is_what_its_last_tag_holds(text, inside):
    assert answer_in_tag(text, "answer") == inside


class Reasoner:
    """An engine that thinks, in text without marks, and answers in a tag."""

    in_batches, at_once, options, tokenizer = True, 4, {}, None

    def ask(self, requests):
        return [Answer(f"{THOUGHT} Rather:\n<answer>[3] > [1] > [2]</answer> <b>[2] > [1] > [3]</b>", 1, 1, 0.0)]


@pytest.mark.parametrize(("prompt", "order"), [("reasonrank", [2, 0, 1]), ("rankzephyr", [1, 0, 2])])
def test_a_ranking_is_read_from_the_tag_that_the_prompt_names(tmp_path, prompt, order):
    with Journal(tmp_path / "journal.jsonl") as journal:
        ranker = WindowRanker(Reasoner(), "m", journal, read_prompt(prompt), Windows("listwise", 3, 1, 1), 1)
        ((_, found, *_),) = ranker.rank({"q": ("bees", ["a", "b", "c"])}, lambda totals: True)
    assert found == order


CUT_THOUGHT = "Okay, the line must have this form: [2] > [3] > [1]. Let's look at each in turn. Passage [1] says"


@pytest.mark.parametrize(("finish", "order", "flagged"), [("length", [0, 1, 2, 3], True), (None, [1, 2, 0, 3], False)])
def test_an_example_quoted_in_thoughts_that_were_cut_is_no_ranking(tmp_path, finish, order, flagged):
    engine = SimpleNamespace(in_batches=True, at_once=4, options={}, tokenizer=None)
    engine.ask = lambda requests: [Answer(CUT_THOUGHT, 1, 9, 0.0, finish=finish) for _ in requests]
    with Journal(tmp_path / "journal.jsonl") as journal:
        ranker = WindowRanker(engine, "m", journal, read_prompt("rankzephyr"), Windows("listwise", 4, 1, 1), 2)
        ((_, *found, _),) = ranker.rank({"q": ("bees", ["a", "b", "c", "d"])}, lambda totals: True)
    assert found == [order, flagged] and ranker.totals.cut == 2 * flagged


def test_passages_that_are_equally_relevant_keep_the_order_that_they_are_written_in():
    """Rank-K may write = between them."""
    assert mend_permutation("<think>[1]?</think>[3] > [2] = [4] > [1]", 4) == ([2, 1, 3, 0], set())


def test_the_estimate_of_a_model_that_thinks_is_an_upper_bound():
    files = ["passages=p", "queries=q", "run=r", "teacher.llm.model=m", "teacher.llm.max_tokens=4096"]
    lists = {"q": ("bees", ["dance", "rails"])}
    thinking = compose_config("annotate", *files, "prompt=rankk")
    assert "tokens in and at most 4,096 out" in estimate_requests(thinking, lists)
    assert "tokens in and 8 out" in estimate_requests(compose_config("annotate", *files), lists)
