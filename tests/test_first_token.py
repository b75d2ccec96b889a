"""First-token ranking: windows in the order of their letters' probabilities, by an endpoint and by a local model."""

import math

import pytest

from distill.commands.annotate import MOST_LETTERS, check
from distill.errors import InputError
from distill.teachers.endpoint import HttpEngine
from distill.teachers.first_token import ranking_of_letters
from distill.teachers.journal import Journal
from distill.teachers.listwise import WindowRanker, Windows
from distill.teachers.prompt import LETTERS, read_prompt
from tests.helpers.backbones import WORDS, make_language_model
from tests.helpers.configuration import compose_config
from tests.helpers.local_llm import answer_and_logits
from tests.helpers.paths import ROOT
from tests.helpers.raw_server import RawServer, completion, respond

PROMPT = str(ROOT / "distill" / "teachers" / "prompts" / "first-token.yaml")
FILES = ["passages=p", "queries=q", "run=r", "method=first-token"]


@pytest.mark.parametrize(
    ("probabilities", "ranking"),
    [
        ({"B": 0.6, "A": 0.3, "C": 0.1}, "[2] > [1] > [3]"),
        ({"B": 0.3, " B": 0.1, "\u2581A": 0.35, "[C": 0.2}, "[2] > [1] > [3]"),  # the forms of a letter are summed
        ({"Both": 0.9, "b": 0.05, "C": 0.05}, "[3]"),  # words and small letters are none
        ({"I'm": 0.9, "Z": 0.1}, ""),
        ({}, ""),
    ],
)
def test_letters_are_ordered_by_their_probability(probabilities, ranking):
    assert ranking_of_letters([(token, math.log(p)) for token, p in probabilities.items()]) == ranking


def test_an_endpoint_orders_a_window_with_one_token(tmp_path):
    likely = {"C": 0.5, "A": 0.3, "T": 0.15, "The": 0.05}  # the last two are no passages

    def reply(connection, body, _):
        tokens = [{"token": token, "logprob": math.log(p)} for token, p in likely.items()]
        respond(connection, completion("C", choice={"logprobs": {"content": [{"top_logprobs": tokens}]}}))

    server = RawServer(reply)
    overrides = [*FILES, "teacher.llm.model=m", f"teacher.llm.base_url={server.url}"]
    engine, prompt = (
        HttpEngine(compose_config("annotate", *overrides).teacher.llm, "first-token"),
        read_prompt(PROMPT, "first-token"),
    )
    with Journal(tmp_path / "journal.jsonl") as journal:
        ranker = WindowRanker(engine, "m", journal, prompt, Windows("first-token", 4, 2, 1), 1)
        ((_, order, flagged, _),) = ranker.rank({"q": ("bees", ["one", "two", "three", "four"])}, lambda totals: True)
    server.close()
    assert order == [2, 0, 1, 3] and not flagged and dict(ranker.totals.answers) == {"missing": 1}
    body = server.bodies[0]
    assert body["max_tokens"] == 1 and body["logprobs"] and "\nB. two\n" in body["messages"][-1]["content"]


def test_a_local_model_orders_a_window_by_its_logits(tmp_path):
    # Its normaliser writes small letters, so that the word of a letter is small
    directory = make_language_model(tmp_path / "lm", words=[*WORDS, *(set(LETTERS.lower()) - {*WORDS})])
    answer, scores = answer_and_logits(directory, "first-token", list(LETTERS.lower()), *FILES)
    assert answer.text == " > ".join(f"[{place + 1}]" for place in scores.argsort(descending=True).tolist())


def test_a_window_has_no_more_passages_than_letters():
    assert len(LETTERS) == MOST_LETTERS
    cfg = compose_config("annotate", *FILES, "teacher.llm.model=m", "window=21", "stride=10")
    with pytest.raises(InputError, match="window=21 with method=first-token: passages have 20 letters at most"):
        check(cfg)
