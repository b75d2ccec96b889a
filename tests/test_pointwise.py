"""Pointwise annotation: scores from yes and no, by an endpoint's log-probabilities and by a local model's logits."""

import math

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from distill.errors import InputError
from distill.sources.run_files import write_run
from distill.sources.runs import read_run
from distill.sources.texts import read_passages, read_queries
from distill.teachers.answer import Answer
from distill.teachers.journal import Journal
from distill.teachers.listwise import WindowRanker, Windows
from distill.teachers.local import LocalEngine
from distill.teachers.orders import OrderedRun, PackedOrders
from distill.teachers.pointwise import order_by_score, ranks_by_score, yes_no_score
from distill.teachers.prompt import read_prompt
from tests.helpers.backbones import WORDS, make_language_model
from tests.helpers.chat_server import Server, overrides_of
from tests.helpers.commands import run_annotate
from tests.helpers.configuration import compose_config
from tests.helpers.paths import ROOT
from tests.helpers.rankings import ranked

ABS = 1e-6
PROMPT = str(ROOT / "distill" / "teachers" / "prompts" / "pointwise.yaml")


@pytest.mark.parametrize(
    ("probabilities", "score"),
    [
        ({"Yes": 0.6, "No": 0.2, "Maybe": 0.2}, math.log(3)),
        ({"Yes": 0.3, " yes": 0.3, "\u0120YES": 0.2, "no": 0.1, "Not": 0.1}, math.log(8)),
        ({"Yes": 0.9, "I": 0.05}, math.log(0.9 / 0.05)),  # no has at most what the last one has
        ({"Yes": 0.9}, math.log(0.9 / 0.1)),  # and at most what is left
        ({"I": 0.9, "As": 0.1}, None),
        ({}, None),
    ],
)
def test_a_score_is_the_log_odds_of_yes(probabilities, score):
    found = yes_no_score([(token, math.log(p)) for token, p in probabilities.items()])
    assert found == (score if score is None else pytest.approx(score, abs=ABS))


def test_a_certain_yes_has_a_finite_score():
    assert 0 < yes_no_score([("Yes", 0.0), ("No", -9999.0)]) < 100


def test_ties_keep_their_order_and_so_does_what_has_no_score_at_the_end():
    assert order_by_score([0.5, None, 2.0, 0.5, None, -1.0]) == [2, 0, 3, 5, 1, 4]


class SureOfMost:
    """An engine that says yes to every passage with the same certainty, but for those that hold rails."""

    in_batches, at_once, options, tokenizer = True, 4, {}, None

    def ask(self, requests):
        return [Answer("Yes", 1, 1, 0.0, score=1.0 if "rails" in one[-1]["content"] else 18.0) for one in requests]


def test_lists_in_which_most_scores_tie_are_counted(tmp_path):
    lists = {"q1": ("bees", ["sun", "rails", "ant"]), "q2": ("bees", ["rails", "sun"])}
    with Journal(tmp_path / "journal.jsonl") as journal:
        ranker = WindowRanker(
            SureOfMost(), "m", journal, read_prompt(PROMPT, "pointwise"), Windows("pointwise", 1, 1, 1), 1
        )
        found = {query_id: (order, ranks) for query_id, order, _, ranks in ranker.rank(lists, lambda totals: True)}
    assert found == {"q1": ([0, 2, 1], [1.5, 1.5, 3]), "q2": ([1, 0], [1, 2])} and ranker.totals.tied == 1


def test_passages_of_equal_score_tie_in_the_teachers_ranking(tmp_path):
    assert ranks_by_score([0.5, None, 2.0, 0.5, None, -1.0]) == [2.5, 5.5, 1, 2.5, 5.5, 4]
    orders = PackedOrders()
    orders.add("q", [2, 0, 1], [1, 2.5, 2.5])
    orders.add("p", [1, 0, 2], [1, 2, 3])
    orders.repeat("r", "q")
    run = OrderedRun({query_id: ranked({"a": 3, "b": 2, "c": 1}) for query_id in "qpr"}, orders)
    write_run(run, tmp_path / "teacher.run", tag="teacher")
    for written in (run, read_run(str(tmp_path / "teacher.run"))):
        assert written["q"].doc_ids == ["c", "a", "b"] and written["q"].ranks.tolist() == [1, 2.5, 2.5]
        assert written["p"].doc_ids == ["b", "a", "c"] and written["p"].scores.tolist() == [3, 2, 1]
        assert written["r"].ranks.tolist() == [1, 2.5, 2.5]


def test_an_endpoint_is_asked_for_each_passage_once(collection, tmp_path, serve):
    server = serve(script=["refusal"] * 3)
    overrides = overrides_of(collection, server, "method=pointwise", "tries=3", "teacher.llm.concurrency=1")
    run = run_annotate(tmp_path / "out", *overrides)
    assert run.returncode == 0, run.stderr
    first, teacher = read_run(str(collection["first_stage"])), read_run(str(tmp_path / "out" / "teacher.run"))
    num_pairs = sum(map(len, first.values()))
    assert sum(server.asked.values()) == num_pairs + 2
    queries = read_queries(str(collection["queries"]))
    passages = read_passages(str(collection["passages"]), {d for listed in first.values() for d in listed.doc_ids})
    refused, prompt = (next(iter(first)), next(iter(first.values())).doc_ids[0]), read_prompt(PROMPT, "pointwise")
    for query_id, listed in first.items():
        scores = {}
        for doc_id in listed.doc_ids:
            text = prompt.fill(queries[query_id], [passages[doc_id]])[-1]["content"]
            yes = 0.0 if (query_id, doc_id) == refused else sum(np.exp(one["logprob"])
                for one in Server.yes_no(text, "good") if one["token"] != "No")  # fmt: skip
            scores[doc_id] = yes
        assert [scores[d] for d in teacher[query_id].doc_ids] == pytest.approx(sorted(scores.values(), reverse=True))
    assert teacher[refused[0]].doc_ids[-1] == refused[1]
    table = pq.read_table(tmp_path / "out" / "teacher.parquet").to_pydict()
    assert {q for q, is_flagged in zip(table["query_id"], table["flagged"], strict=True) if is_flagged} == {refused[0]}
    asked = sum(server.asked.values())
    again = run_annotate(tmp_path / "out", *overrides, f"resume={tmp_path / 'out'}")
    assert again.returncode == 0 and sum(server.asked.values()) == asked


def test_an_endpoint_without_log_probabilities_is_refused(collection, tmp_path, serve):
    server = serve(script=["no logprobs"])
    overrides = overrides_of(collection, server, "method=pointwise", "teacher.llm.concurrency=1")
    run = run_annotate(tmp_path / "out", *overrides)
    assert run.returncode == 2 and "answers without logprobs, which method=pointwise needs" in run.stderr


def test_an_unknown_method_is_answered_with_the_known_ones(collection, tmp_path, serve):
    run = run_annotate(tmp_path / "out", *overrides_of(collection, serve(), "method=bm25", "prompt=p.yaml"))
    assert run.returncode == 2 and "method=bm25 is unknown: choose one of listwise, pointwise" in run.stderr


def test_a_local_model_scores_by_its_logits_in_batches_as_alone(tmp_path):
    from transformers import AutoTokenizer

    directory = make_language_model(tmp_path / "lm", words=[*WORDS, "yes", "no"])
    tokenizer = AutoTokenizer.from_pretrained(directory)
    overrides = ["passages=p", "queries=q", "run=r", "llm@teacher.llm=local", f"teacher.llm.model={directory}"]
    cfg = compose_config("annotate", *overrides, "method=pointwise")
    engine = LocalEngine(cfg.teacher.llm, torch.device("cpu"), "pointwise")
    texts = [" ".join(WORDS[:n]) for n in (3, 9, 5)]
    together = engine.ask([[{"role": "user", "content": text}] for text in texts])
    yes, no = tokenizer.convert_tokens_to_ids(["yes", "no"])
    for text, answer in zip(texts, together, strict=True):
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            logits = engine.model(ids).logits[0, -1]
        assert answer.score == pytest.approx(float(logits[yes] - logits[no]), abs=1e-5)
    cfg.teacher.llm.model = str(make_language_model(tmp_path / "dumb"))
    with pytest.raises(InputError, match="has no token for yes"):
        LocalEngine(cfg.teacher.llm, torch.device("cpu"), "pointwise")
