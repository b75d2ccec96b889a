"""Re-ranking and measuring, against pairs scored alone, values by hand and published figures."""

import math

import numpy as np
import pytest
import torch

from distill.config.measures import parse_measures
from distill.data.tokens_as_needed import TokensAsNeeded
from distill.distributed import Ranks
from distill.errors import InputError
from distill.evaluation.averages import measure_rows
from distill.evaluation.measures import measure
from distill.evaluation.rerank import TaskReranker, window_starts
from distill.evaluation.tasks import read_task
from distill.models.cross_encoder import CrossEncoder
from distill.sources.run_files import RankedList
from distill.sources.runs import read_run
from distill.teachers.ensemble import score_lists
from tests.helpers.configuration import compose_config


def task_config(collection, *more):
    names = ("passages", "queries", "qrels")
    overrides = [f"task.{name}={collection[name]}" for name in names] + [f"task.run={collection['first_stage']}"]
    return compose_config("evaluate", "task=files", *overrides, *more).task


def test_every_passage_has_the_score_that_rank_gives_it(collection, backbone):
    task = read_task(task_config(collection))
    model = CrossEncoder.from_backbone(str(backbone), query_length=8, passage_length=16).eval()
    reranked = TaskReranker(task, model).rerank(model, max_tokens=60)
    assert list(reranked) == list(task.run)
    for query_id, ranked in reranked.items():
        doc_ids = task.run[query_id].doc_ids
        indices, scores = model.rank(task.queries[query_id], [task.passages[doc_id] for doc_id in doc_ids])
        assert ranked.doc_ids == [doc_ids[index] for index in indices]
        np.testing.assert_allclose(ranked.scores, scores, rtol=1e-5, atol=1e-6)


def test_a_rank_without_queries_scores_none_and_gathers_the_others(collection, backbone):
    class Second(Ranks):
        def gather(self, value):
            return [{"q0": "by the first"}, value]

    task = read_task(task_config(collection))
    task.run = dict(list(task.run.items())[:1])
    model = CrossEncoder.from_backbone(str(backbone), query_length=8, passage_length=16).eval()
    assert TaskReranker(task, model, ranks=Second(1, 2, model.device)).rerank(model, 60) == {"q0": "by the first"}


def test_reranking_stops_at_the_depth_and_keeps_the_training_mode(collection, backbone):
    task = read_task(task_config(collection, "task.depth=3"))
    model = CrossEncoder.from_backbone(str(backbone), query_length=8, passage_length=16).train()
    first_stage = read_run(str(collection["first_stage"]))
    reranked = TaskReranker(task, model).rerank(model, max_tokens=10**4)
    assert model.training
    assert all(set(ranked.doc_ids) == set(first_stage[q].doc_ids[:3]) for q, ranked in reranked.items())


def test_queries_whose_ends_the_model_does_not_read_are_counted(collection, backbone, caplog):
    task = read_task(task_config(collection))
    TaskReranker(task, CrossEncoder.from_backbone(str(backbone), query_length=4, passage_length=16))
    assert "longer than" not in caplog.text
    model = CrossEncoder.from_backbone(str(backbone), query_length=2, passage_length=16)
    assert TaskReranker(task, model).cut_queries == ["q1", "q2", "q4", "q5"]
    assert caplog.messages[-1] == (
        "files: 4 of 6 queries are longer than model.query_length=2 tokens: their ends are not read (first: q1)"
    )


@pytest.mark.parametrize("kept", [10_000, 7])  # tokens: of every passage, or of one or two
def test_tokens_that_are_not_kept_give_the_same_scores_bit_for_bit(collection, backbone, monkeypatch, kept):
    monkeypatch.setattr("distill.sources.shards.PAIRS_AT_ONCE", 20)  # three groups of two queries
    monkeypatch.setattr("distill.data.tokens_as_needed.KEPT", kept)
    task = read_task(task_config(collection, "task.windows=2"))
    model = CrossEncoder.from_backbone(str(backbone), query_length=8, passage_length=5).eval()
    once, whole = TaskReranker(task, model, once=True), TaskReranker(task, model)
    expected = whole.rerank(model, max_tokens=60)
    for reranked in (once.rerank(model, max_tokens=60), once.rerank(model, max_tokens=60)):
        assert list(reranked) == list(expected)
        for query_id, ranked in reranked.items():
            assert ranked.doc_ids == expected[query_id].doc_ids
            np.testing.assert_array_equal(ranked.scores, expected[query_id].scores)
    assert isinstance(once.passages, TokensAsNeeded)
    assert once.passages.num_kept == len(once.passages.tokens) <= kept


def test_unknown_tokens_of_passages_are_warned_of_with_the_first_queries(collection, backbone, monkeypatch, caplog):
    monkeypatch.setattr("distill.sources.shards.PAIRS_AT_ONCE", 20)
    texts = [f"d{number}\t蜂蜜 bees\n" for number in range(30)]
    collection["passages"].write_text("".join(texts))
    task = read_task(task_config(collection))
    model = CrossEncoder.from_backbone(str(backbone), query_length=8, passage_length=16).eval()
    for once in (False, True):
        caplog.clear()
        TaskReranker(task, model, once=once).rerank(model, max_tokens=60)
        [warning] = [message for message in caplog.messages if "unknown" in message]
        assert warning.startswith("passages of files: ")


def test_passages_of_equal_score_keep_their_order(collection, backbone):
    task = read_task(task_config(collection))
    model = CrossEncoder.from_backbone(str(backbone), query_length=8, passage_length=16).eval()
    torch.nn.init.zeros_(model.head.weight)
    reranked = TaskReranker(task, model).rerank(model, max_tokens=10**4)
    assert all(ranked.doc_ids == task.run[q].doc_ids for q, ranked in reranked.items())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_score_that_is_not_finite_is_refused_with_its_query_and_passage(collection, backbone, monkeypatch, value):
    task = read_task(task_config(collection, "task.windows=3", "task.window_stride=2"))
    model = CrossEncoder.from_backbone(str(backbone), query_length=8, passage_length=4).eval()
    reranker = TaskReranker(task, model)
    num_windows = [len(window_starts(len(task.passages[d].split()[:8]), 4, 2)) for d in task.run["q1"].doc_ids]
    place = sum(num_windows[:7]) - 1  # the last window of the seventh passage; the best of them would hide -inf
    score = model.score

    def spoilt(batch, max_tokens, exit_keep=None):
        scores = score(batch, max_tokens, exit_keep)
        scores[1, place] = value
        return scores

    monkeypatch.setattr(model, "score", spoilt)
    expected = f"^query q1, passage {task.run['q1'].doc_ids[6]}: the model's score is {value}, which cannot be ranked: "
    with pytest.raises(InputError, match=expected):
        reranker.rerank(model, max_tokens=10**4)


def test_a_model_with_damaged_weights_neither_ranks_nor_teaches(collection, backbone, tmp_path):
    task = read_task(task_config(collection))
    model = CrossEncoder.from_backbone(str(backbone), query_length=8, passage_length=16)
    torch.nn.init.constant_(model.head.weight, float("nan"))
    first = task.run["q0"].doc_ids[0]
    with pytest.raises(InputError, match=f"^query q0, passage {first}: the model's score is nan"):
        TaskReranker(task, model).rerank(model, max_tokens=10**4)
    model.save_pretrained(tmp_path / "model")
    cfg = compose_config(
        "annotate", "llm@teacher.llm=cross-encoder", f"teacher.llm.model={tmp_path / 'model'}",
        "passages=p", "queries=q", "run=r",
    )  # fmt: skip
    with pytest.raises(InputError, match=f"^query q0, passage {first}: the model's score is nan"):
        score_lists(task.run, task.queries, task.passages, cfg)


def ranked(*doc_ids: str) -> RankedList:
    return RankedList(list(doc_ids), -np.arange(float(len(doc_ids))), np.arange(1.0, len(doc_ids) + 1))


def test_measures_by_hand_and_a_judged_query_without_ranking_counts_zero():
    qrels = {"p": {"a": 3, "b": 1, "c": -1}, "q": {"a": 1}}
    run = {"p": ranked("c", "a", "b")}
    values, per_query = measure(run, qrels, parse_measures(["nDCG@10", "RR@10"]))
    ndcg = (3 / math.log2(3) + 1 / math.log2(4)) / (3 + 1 / math.log2(3))
    assert per_query["p"]["nDCG@10"] == pytest.approx(ndcg) and per_query["p"]["RR@10"] == 0.5
    assert values == {"nDCG@10": pytest.approx(ndcg / 2), "RR@10": 0.25}


@pytest.mark.shared
@pytest.mark.parametrize(("name", "published"), [("bm25", 0.480), ("colbert", 0.732)])
def test_first_stage_rows_of_table_1(shared, name, published):
    folder = shared / "data" / "trec-dl-2019"
    files = [f"task.run={folder / name}.run.gz", f"task.qrels={folder / 'qrels.txt'}", "task.depth=100"]
    task = read_task(compose_config("evaluate", "task=files", *files).task, texts=False)
    (value,) = measure_rows(task, {"first_stage": task.run})[0].values()
    assert round(value, 3) == published


@pytest.mark.shared
def test_bm25_on_cranfield(shared):
    folder = shared / "data" / "cranfield"
    files = [
        f"task.run={folder / 'bm25.run'}",
        f"task.qrels={folder / 'qrels.txt'}",
        "task.measures=[nDCG@10,RR@10,R@100]",
    ]
    task = read_task(compose_config("evaluate", "task=files", *files).task, texts=False)
    assert [round(value, 3) for value in measure_rows(task, {"x": task.run})[0].values()] == [0.348, 0.494, 0.687]


def test_judgments_of_queries_outside_the_query_file_are_left_out(collection, caplog):
    caplog.set_level("INFO")
    with open(collection["qrels"], "a") as file:
        file.write("q99 0 d1 1\n")
    task = read_task(task_config(collection))
    assert "q99" not in task.qrels and "judgments of 1 queries" in caplog.text


def test_unjudged_queries_are_counted_and_left_out_of_validation(collection, backbone, caplog):
    lines = [line for line in collection["qrels"].read_text().splitlines() if not line.startswith("q0 ")]
    collection["qrels"].write_text("\n".join(lines) + "\n")
    task = read_task(task_config(collection))
    assert "1 of 6 queries of the run have no judgments" in caplog.text
    model = CrossEncoder.from_backbone(str(backbone), query_length=8, passage_length=16)
    assert "q0" not in TaskReranker(task, model, judged_only=True).run
    assert "q0" in TaskReranker(task, model).run


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("passages", "d99\ta bee\n", "first_stage.txt:1: passage d\\d+ is not in .*passages.tsv"),
        ("qrels", "q99 0 d1 1\n", "qrels.txt: judges none of the 6 queries"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(collection, name, text, message):
    collection[name].write_text(text)
    with pytest.raises(InputError, match=message):
        read_task(task_config(collection))


def test_an_unknown_measure_is_refused():
    with pytest.raises(InputError, match="measure nDGC@10: unknown to ir_measures"):
        parse_measures(["nDGC@10"])
