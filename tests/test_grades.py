"""Graded annotation: the expected grade of each passage orders a list."""

import math

import pytest
import torch

from distill.teachers.endpoint import HttpEngine
from distill.teachers.grades import DIGITS, expected_grade
from distill.teachers.journal import Journal
from distill.teachers.listwise import WindowRanker, Windows
from distill.teachers.prompt import read_prompt
from tests.helpers.backbones import WORDS, make_language_model
from tests.helpers.configuration import compose_config
from tests.helpers.local_llm import answer_and_logits
from tests.helpers.paths import ROOT
from tests.helpers.raw_server import RawServer, completion, respond

PROMPT = str(ROOT / "distill" / "teachers" / "prompts" / "graded.yaml")
FILES = ["passages=p", "queries=q", "run=r", "method=graded"]


@pytest.mark.parametrize(
    ("probabilities", "grade"),
    [
        ({"7": 0.5, "8": 0.25, "6": 0.25}, 7.0),
        ({"9": 0.3, " 9": 0.3, "\u01200": 0.2, "The": 0.2}, 6.75),  # 5.4 / 0.8
        ({"4": 1.0}, 4.0),
        ({"10": 0.9, "3": 0.1}, 3.0),
        ({"I": 0.999, "5": 0.001}, None),
        ({"²": 1.0}, None),
        ({}, None),
    ],
)
def test_a_grade_is_the_mean_of_the_digits_by_their_probability(probabilities, grade):
    found = expected_grade([(token, math.log(p)) for token, p in probabilities.items()])
    assert found == (grade if grade is None else pytest.approx(grade, abs=1e-9))


def test_an_endpoint_grades_each_passage(tmp_path):
    grades = {"one": {"2": 0.6, "3": 0.4}, "two": {"2": 0.4, "3": 0.6}, "three": {"Well": 1.0}, "four": {"9": 1.0}}

    def reply(connection, body, _):
        text = next(word for word in grades if f"Passage: {word}\n" in body["messages"][-1]["content"])
        tokens = [{"token": token, "logprob": math.log(p)} for token, p in grades[text].items()]
        respond(connection, completion("2", choice={"logprobs": {"content": [{"top_logprobs": tokens}]}}))

    server = RawServer(reply)
    overrides = [*FILES, "teacher.llm.model=m", f"teacher.llm.base_url={server.url}"]
    engine = HttpEngine(compose_config("annotate", *overrides).teacher.llm, "graded")
    with Journal(tmp_path / "journal.jsonl") as journal:
        windows, prompt = Windows("graded", 4, 2, 1), read_prompt(PROMPT, "graded")
        ranker = WindowRanker(engine, "m", journal, prompt, windows, 1)
        ((_, order, flagged, _),) = ranker.rank({"q": ("bees", list(grades))}, lambda totals: True)
    server.close()
    assert order == [3, 1, 0, 2] and flagged and len(server.bodies) == 4


def test_a_local_model_grades_by_its_logits(tmp_path):
    directory = make_language_model(tmp_path / "lm", words=[*WORDS, *DIGITS])
    answer, logits = answer_and_logits(directory, "graded", list(DIGITS), *FILES)
    p = logits.double().softmax(dim=0)
    assert answer.score == pytest.approx(float((p * torch.arange(10)).sum()), abs=1e-5)
