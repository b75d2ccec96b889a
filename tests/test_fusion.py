"""Fusion of runs, against values worked by hand, a plain definition, and a published value; `distill fuse` as typed."""

import json
import math
import subprocess
from pathlib import Path

import numpy as np
import pytest

from distill.errors import InputError
from distill.evaluation.articles import article_run
from distill.evaluation.fusion_weights import GRID, fit_weights
from distill.evaluation.measures import measure, trec_order
from distill.evaluation.tasks import parse_measures
from distill.retrieval.fusion import METHODS, Given, fuse, z_scores
from distill.sources.qrels import read_qrels
from distill.sources.run_files import RankedList, average_ranks, write_run
from distill.sources.runs import cached_run, read_run
from tests.helpers.commands import run, run_evaluate
from tests.helpers.rankings import ranked

FLOAT32 = 2**-24  # relative error of rounding to float32
A = {"q": ranked({"a": 3, "b": 2, "c": 1})}
B = {"q": ranked({"c": 9, "d": 5, "a": 4})}


def scores_of(fused, query_id="q") -> dict[str, float]:
    return dict(zip(fused[query_id].doc_ids, fused[query_id].scores.tolist(), strict=True))


def test_reciprocal_ranks_add_up_and_a_passage_that_a_run_lacks_gets_nothing_from_it():
    both, one = 1 / 61 + 1 / 63, 1 / 62
    fused = fuse([A, B])
    assert fused["q"].doc_ids == ["c", "a", "d", "b"]  # equal scores: by id, descending
    assert scores_of(fused) == pytest.approx({"c": both, "a": both, "d": one, "b": one}, rel=FLOAT32)
    assert scores_of(fuse([A, B], k=0)) == pytest.approx({"c": 4 / 3, "a": 4 / 3, "d": 0.5, "b": 0.5}, rel=FLOAT32)


def test_lacking_passages_share_the_average_of_the_places_behind_the_last():
    # Places in A: a 1, b 2, c 3, and d 4; in B: c 1, d 2, a 3, and b 4
    assert scores_of(fuse([A, B], "mean-rank")) == {"c": -2, "a": -2, "d": -3, "b": -3}
    long, short = {"q": ranked({"a": 4, "b": 3, "c": 2, "d": 1})}, {"q": ranked({"d": 0.9})}
    # In `short`, a, b and c share the places 2, 3 and 4
    assert scores_of(fuse([long, short], "mean-rank")) == {"a": -2, "d": -2.5, "b": -2.5, "c": -3}


def test_the_mean_of_z_scores_gives_a_lacking_passage_the_lists_lowest():
    a = math.sqrt(3 / 2)  # A: 3, 2, 1 have variance 2 / 3
    c, d, last = (
        3 / math.sqrt(14 / 3),
        -1 / math.sqrt(14 / 3),
        -2 / math.sqrt(14 / 3),
    )  # B: 9, 5, 4 have variance 14 / 3
    expected = {"a": (a + last) / 2, "c": (-a + c) / 2, "b": (0 + last) / 2, "d": (-a + d) / 2}
    fused = fuse([A, B], "z-score")
    assert scores_of(fused) == pytest.approx(expected, rel=FLOAT32)
    assert fused["q"].doc_ids == ["a", "c", "b", "d"]


@pytest.mark.parametrize("scale", [1, 20, 1e300])
def test_weights_by_hand_count_by_their_ratio(scale):
    weights = [scale * 1.0, scale * 0.25]
    a, b, c, d = 1 / 61 + 0.25 / 63, 1 / 62, 1 / 63 + 0.25 / 61, 0.25 / 62
    assert scores_of(fuse([A, B], "rrf", weights)) == pytest.approx({"a": a, "b": b, "c": c, "d": d}, rel=FLOAT32)
    # (1 + 3 / 4) / 1.25, (2 + 4 / 4) / 1.25, (3 + 1 / 4) / 1.25, (4 + 2 / 4) / 1.25
    expected = {"a": -1.4, "b": -2.4, "c": -2.6, "d": -3.6}
    assert scores_of(fuse([A, B], "mean-rank", weights)) == pytest.approx(expected, rel=FLOAT32)
    one, other = {"q": ranked({"a": 1, "b": 0})}, {"q": ranked({"b": 1, "a": 0})}  # z-scores 1 and -1
    expected = {"a": (1 - 0.25) / 1.25, "b": (-1 + 0.25) / 1.25}
    assert scores_of(fuse([one, other], "z-score", weights)) == pytest.approx(expected, rel=FLOAT32)


def test_tied_passages_of_a_run_share_their_average_rank(tmp_path):
    (tmp_path / "tied.run").write_text("q Q0 a 0 2 x\nq Q0 b 0 1 x\nq Q0 c 0 1 x\nq Q0 d 0 0 x\n")
    tied, other = read_run(str(tmp_path / "tied.run")), {"q": ranked({"c": 2, "d": 1})}
    expected = {"a": 1 / 61, "b": 1 / 62.5, "c": 1 / 62.5 + 1 / 61, "d": 1 / 64 + 1 / 62}
    assert scores_of(fuse([tied, other])) == pytest.approx(expected, rel=FLOAT32)


@pytest.mark.parametrize("method", METHODS)
def test_articles_whose_best_passages_tie_share_their_average_rank_in_any_order_of_the_lines(tmp_path, method):
    tied = ["q Q0 a#0 1 5 x\n", "q Q0 b#0 1 5 x\n", "q Q0 c#0 3 1 x\n", "q Q0 b#1 4 0 x\n"]
    other = {"q": ranked({"b": 3, "a": 2, "c": 1})}
    found = []
    for lines in (tied, [tied[1], tied[0], *tied[2:]]):
        (tmp_path / "a.run").write_text("".join(lines))
        articles = article_run(read_run(str(tmp_path / "a.run")), "a.run")
        assert sorted(articles["q"].doc_ids[:2]) == ["a", "b"] and articles["q"].ranks.tolist() == [1.5, 1.5, 3]
        assert articles["q"].scores.tolist() == [5, 5, 1]
        found.append(scores_of(fuse([articles, other], method)))
    assert found[0] == found[1]
    if method == "mean-rank":
        assert found[0] == {"a": -1.75, "b": -1.25, "c": -3}  # (1.5 + 2) / 2, (1.5 + 1) / 2, 3


def test_articles_with_one_score_keep_the_order_that_the_rank_column_gives_their_passages(tmp_path):
    (tmp_path / "a.run").write_text("q Q0 a#0 2 5 x\nq Q0 b#0 1 5 x\n")
    articles = article_run(read_run(str(tmp_path / "a.run")), "a.run")["q"]
    assert articles.doc_ids == ["b", "a"] and articles.ranks.tolist() == [1, 2]


def test_passages_of_equal_fused_score_tie_and_are_read_back_as_tied(tmp_path):
    fused = fuse([{"q": ranked({"a": 3, "b": 2, "c": 1})}, {"q": ranked({"b": 3, "a": 2, "c": 1})}])
    assert fused["q"].ranks.tolist() == [1.5, 1.5, 3]  # a student must not learn that b comes before a
    write_run(fused, tmp_path / "fused.run", tag="rrf")
    lines = [line.split() for line in (tmp_path / "fused.run").read_text().splitlines()]
    assert [(doc_id, rank) for _, _, doc_id, rank, *_ in lines] == [("b", "1"), ("a", "1"), ("c", "3")]
    read = read_run(str(tmp_path / "fused.run"))["q"]
    assert read.doc_ids == fused["q"].doc_ids and read.ranks.tolist() == [1.5, 1.5, 3]
    (tmp_path / "cut.run").write_text("q Q0 a 1 2 x\nq Q0 b 2 2 x\n")  # equal scores that the rank column orders
    write_run(read_run(str(tmp_path / "cut.run")), tmp_path / "again.run", tag="x")
    assert read_run(str(tmp_path / "again.run"))["q"].ranks.tolist() == [1, 2]


@pytest.mark.parametrize("method", METHODS)
def test_a_query_that_a_run_lacks_is_fused_from_the_others(method):
    only = {"p": ranked({"x": 1, "y": 0})}
    fused = fuse([A, B | only, B], method, weights=[1, 3, 2])
    assert list(fused) == ["q", "p"] and fused["p"].doc_ids == ["x", "y"]
    expected = {"rrf": [1 / 61, 1 / 62], "mean-rank": [-1, -2], "z-score": [1, -1]}
    assert fused["p"].scores.tolist() == pytest.approx(expected[method], rel=FLOAT32)


def test_run_depth_cuts_what_is_read_and_depth_what_is_written():
    assert scores_of(fuse([A, B], run_depth=1)) == pytest.approx({"c": 1 / 61, "a": 1 / 61}, rel=FLOAT32)
    # z-scores of what is left: A 3, 2 and B 9, 5
    assert scores_of(fuse([A, B], "z-score", run_depth=2)) == {"c": 0, "a": 0, "d": -1, "b": -1}
    whole, cut = fuse([A, B], "mean-rank")["q"], fuse([A, B], "mean-rank", depth=3)["q"]
    assert (cut.doc_ids, cut.scores.tolist()) == (whole.doc_ids[:3], whole.scores.tolist()[:3])


def test_a_tie_that_the_depth_cuts_stays_ahead_of_passages_that_the_run_lacks():
    tied = {"q": RankedList(list("abcdefghi"), np.ones(9), np.full(9, 5.0))}
    # a and b share the places 1 and 2, not the average of all nine; z has place 3
    fused = fuse([tied, {"q": ranked({"z": 2, "a": 1})}], "mean-rank", run_depth=2)
    assert scores_of(fused) == {"a": -1.75, "z": -2, "b": -2.25}


@pytest.mark.parametrize("method", METHODS)
def test_random_runs_are_fused_as_a_plain_definition_says_in_any_order_of_the_runs(method, tmp_path):
    random = np.random.default_rng(0)
    runs, weights, k = [random_run(random) for _ in range(3)], [0.7, 1.0, 0.3], 7.0
    fused = fuse(runs, method, weights, k)
    for query_id in {query_id for one in runs for query_id in one}:
        assert scores_of(fused, query_id) == pytest.approx(
            plain(runs, query_id, method, weights, k), rel=1e-6, abs=1e-6
        )
        assert trec_order(fused[query_id]) == fused[query_id].doc_ids
    turned = fuse(runs[::-1], method, weights[::-1], k)
    assert all(scores_of(turned, query_id) == scores_of(fused, query_id) for query_id in fused)
    write_run(fused, tmp_path / "fused.run", method)
    read = read_run(str(tmp_path / "fused.run"))
    assert {query_id: list(scores_of(read, query_id).items()) for query_id in read} == {
        query_id: list(scores_of(fused, query_id).items()) for query_id in fused
    }


def random_run(random) -> dict[str, RankedList]:
    run = {}
    for query in random.permutation(20)[:15].tolist():
        doc_ids = [f"d{number}" for number in random.permutation(40)[: random.integers(1, 30)].tolist()]
        scores = np.sort(random.integers(-4, 5, len(doc_ids)) * 1.5)[::-1].copy()  # many ties
        run[f"q{query}"] = RankedList(doc_ids, scores, average_ranks(scores, scores))
    return run


def plain(runs, query_id: str, method: str, weights: list[float], k: float) -> dict[str, float]:
    """The definitions, a passage and a run at a time."""
    having = [(run[query_id], weight) for run, weight in zip(runs, weights, strict=True) if query_id in run]
    fused = {}
    for doc_id in {doc_id for one, _ in having for doc_id in one.doc_ids}:
        total = 0.0
        for one, weight in having:
            scores = dict(zip(one.doc_ids, one.scores.tolist(), strict=True))
            num_all = len({other for some, _ in having for other in some.doc_ids})
            if doc_id in scores:
                better = sum(score > scores[doc_id] for score in scores.values())
                equal = sum(score == scores[doc_id] for score in scores.values())
                rank = better + (equal + 1) / 2
            else:
                rank = (len(scores) + 1 + num_all) / 2
            mean = math.fsum(scores.values()) / len(scores)
            deviation = math.sqrt(math.fsum((score - mean) ** 2 for score in scores.values()) / len(scores))
            z = (scores.get(doc_id, min(scores.values())) - mean) / deviation if deviation else 0.0
            reciprocal = 1 / (k + rank) if doc_id in scores else 0
            total += weight * {"rrf": reciprocal, "mean-rank": -rank, "z-score": z}[method]
        fused[doc_id] = total if method == "rrf" else total / sum(weight for _, weight in having)
    return fused


def test_passages_that_tie_but_for_rounding_are_in_trec_evals_order():
    # Both have ranks 1, 2 and 3: added in the order of the runs, the sums differ in the last digit
    lists = [{"a": 3, "b": 2, "x": 1}, {"b": 3, "x": 2, "a": 1}, {"x": 3, "a": 2, "b": 1}]
    fused = fuse([{"q": ranked(scores)} for scores in lists])["q"]
    assert fused.doc_ids == ["x", "b", "a"] and len({*fused.scores}) == 1


@pytest.mark.parametrize(
    ("runs", "options", "message"),
    [
        ([A], {}, "1 run: fusion needs two or more"),
        ([A, {"p": A["q"]}], {}, "the runs have no query in common: check that they are runs of the same queries"),
        ([A, B], {"method": "rr"}, "method rr is unknown: choose one of rrf, mean-rank, z-score"),
        ([A, B], {"weights": [1]}, "weights [1]: 2 runs need 2 numbers above 0"),
        ([A, B], {"weights": [1, 0]}, "weights [1, 0]: 2 runs need 2 numbers above 0"),
        ([A, B], {"weights": [1, math.nan]}, "weights [1, nan]: 2 runs need 2 numbers above 0"),
    ],
)
def test_what_cannot_be_fused_is_refused(runs, options, message):
    with pytest.raises(InputError) as caught:
        fuse(runs, **options)
    assert str(caught.value) == message


@pytest.mark.parametrize("method", METHODS)
def test_an_empty_list_has_no_opinion(method):
    fused = fuse([A, {"q": RankedList([], np.zeros(0), np.zeros(0))}], method)
    assert fused["q"].doc_ids == ["a", "b", "c"]


def test_runs_without_a_common_passage_are_fused_with_a_warning(caplog):
    assert fuse([A, {"q": ranked({"D1": 1})}])["q"].doc_ids == ["a", "D1", "b", "c"]
    assert "the runs have no passage in common: check that their ids are those of one collection" in caplog.text


@pytest.mark.shared
@pytest.mark.parametrize(("split", "expected"), [("test", 0.3431), ("dev", 0.3138)])
def test_reciprocal_rank_fusion_on_nfcorpus_has_the_known_value(shared, split, expected):
    folder = shared / "data" / "nfcorpus"
    runs = [read_run(str(folder / f"{split}.{name}.run.gz")) for name in ("bm25", "dense")]
    means, _ = measure(fuse(runs), read_qrels(str(folder / f"qrels.{split}.tsv.gz")), parse_measures(["nDCG@10"]))
    assert round(means["nDCG@10"], 4) == expected


def test_large_runs_are_fused_from_the_disk_alike(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    random = np.random.default_rng(1)
    names = [str(tmp_path / f"{number}.run") for number in range(2)]
    for name in names:
        write_run(random_run(random), Path(name), "x")
    small, large = (fuse([read(name) for name in names], run_depth=9) for read in (read_run, cached_run))
    assert list(small) == list(large) and all(scores_of(small, q) == scores_of(large, q) for q in small)


@pytest.fixture
def files(tmp_path) -> list[str]:
    """Two runs in files, of which the second lacks a query."""
    write_run(A | {"p": ranked({"x": 1, "y": 0})}, tmp_path / "a.run", "a")
    write_run(B, tmp_path / "b.run", "b")
    return [f"runs=[{tmp_path}/a.run,{tmp_path}/b.run]", f"output={tmp_path}/f.run"]


def run_fuse(*overrides, cwd) -> subprocess.CompletedProcess:
    return run("-m", "distill", "fuse", *overrides, cwd=cwd)


def test_the_command_writes_a_run_that_is_measured_as_it_is_written(files, tmp_path):
    done = run_fuse(*files, "method=mean-rank", "weights=[3,1]", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path}/b.run: lacks 1 of 2 queries: they are fused from the other runs (first: p)" in done.stderr
    assert "2 queries, 3.0 passages each: " in done.stderr
    # (3 * 1 + 3) / 4, (3 * 2 + 4) / 4, (3 * 3 + 1) / 4, (3 * 4 + 2) / 4: b and c tie
    rows = [("a", 1, -1.5), ("c", 2, -2.5), ("b", 2, -2.5), ("d", 4, -3.5)]
    lines = [f"q Q0 {doc_id} {rank} {score} mean-rank" for doc_id, rank, score in rows]
    lines += ["p Q0 x 1 -1.0 mean-rank", "p Q0 y 2 -2.0 mean-rank"]
    assert (tmp_path / "f.run").read_text().splitlines() == lines
    (tmp_path / "qrels").write_text("q 0 b 1\np 0 y 1\n")
    measured = ["model=null", "task=files", f"task.run={tmp_path}/f.run", f"task.qrels={tmp_path}/qrels"]
    done = run_evaluate(tmp_path / "evaluated", *measured, "task.measures=[RR@10]")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "evaluated" / "results.json").read_text())
    assert results["first_stage/files/RR@10"] == pytest.approx((1 / 3 + 1 / 2) / 2)


# Fitted weights


def random_rankings(seed: int, num_queries: int = 12) -> tuple[list[dict], dict]:
    """Three runs of increasing noise, and the grades that they try to order."""
    generator = np.random.default_rng(seed)
    runs: list[dict] = [{}, {}, {}]
    qrels = {}
    for number in range(num_queries):
        grades = generator.integers(0, 3, 15)
        qrels[f"q{number}"] = {f"d{place}": int(grade) for place, grade in enumerate(grades)}
        for rankings, noise in zip(runs, (0.8, 1.5, 6), strict=True):
            scores = grades + noise * generator.normal(size=15)
            order = np.argsort(-scores)
            rankings[f"q{number}"] = RankedList.in_order([f"d{place}" for place in order], scores[order])
    return runs, qrels


@pytest.mark.parametrize("method", ["rrf", "mean-rank", "z-score"])
def test_no_single_change_of_fitted_weights_helps(method):
    runs, qrels = random_rankings(3)
    qrels["q99"] = {"d0": 1}  # that no run has
    measures = parse_measures(["nDCG@10"])

    def value_of(weights) -> float:
        return measure(fuse(runs, method, weights), {q: qrels[q] for q in runs[0]}, measures)[0]["nDCG@10"]

    weights = fit_weights(runs, qrels, "nDCG@10", method)
    best = value_of(weights)
    assert max(weights) == 1 and weights[2] < 1 and best > value_of(None)
    for place in range(3):
        for candidate in GRID:
            assert value_of([*weights[:place], candidate, *weights[place + 1 :]]) <= best + 1e-6


def test_lists_are_read_once_to_fit_weights(monkeypatch):
    runs, qrels = random_rankings(3)
    made, of = [], Given.of

    def counted(runs, query_id, *options):
        made.append(query_id)
        return of(runs, query_id, *options)

    monkeypatch.setattr(Given, "of", counted)
    fit_weights(runs, qrels)
    assert sorted(made) == sorted(2 * list(qrels))  # once for the errors and warnings of `fuse`


def test_weights_stay_equal_where_no_change_helps():
    runs, _ = random_rankings(0)
    qrels = {query_id: {ranked.doc_ids[0]: 1} for query_id, ranked in runs[0].items()}
    assert fit_weights([runs[0], runs[0]], qrels, "nDCG@10", "rrf") == [1, 1]
    with pytest.raises(InputError, match="the runs have none of the judged queries"):
        fit_weights(runs, {"other": {"d0": 1}})


def test_the_command_fits_weights_and_says_how_to_use_them(tmp_path):
    runs, qrels = random_rankings(1)
    for name, rankings in zip("abc", runs, strict=True):
        write_run(rankings, tmp_path / f"{name}.run", "x")
    lines = [f"{query_id} 0 {doc_id} {grade}" for query_id, grades in qrels.items() for doc_id, grade in grades.items()]
    (tmp_path / "qrels").write_text("\n".join(lines))
    call = ["runs=[a.run,b.run,c.run]", "output=f.run", "method=z-score"]
    done = run_fuse(*call, "qrels=qrels", cwd=tmp_path)
    weights = fit_weights(runs, qrels, "nDCG@10", "z-score")
    assert done.returncode == 0, done.stderr
    assert f"weights {weights} fitted on 12 queries: nDCG@10 " in done.stderr
    shares = ",".join(f"{weight:g}" for weight in weights)
    assert f"method=z-score 'weights=[{shares}]'" in done.stderr
    again = run_fuse(*call, f"weights=[{shares}]", "output=g.run", cwd=tmp_path)
    assert again.returncode == 0 and (tmp_path / "g.run").read_text() == (tmp_path / "f.run").read_text()


@pytest.mark.shared
@pytest.mark.parametrize(("fitted_on", "tested_on"), [("19", "20"), ("20", "19")])
def test_weights_fitted_on_one_year_beat_equal_ones_on_the_other(shared, fitted_on, tested_on):
    data = shared / "data" / "msmarco-mini"
    runs, qrels = {}, {}
    for year in (fitted_on, tested_on):
        stages = ("bm25", "rm3", "tasb", "ada2", "splade")
        runs[year] = [read_run(str(data / f"rankvicuna.dl{year}.{stage}.run.gz")) for stage in stages]
        qrels[year] = read_qrels(str(data / f"qrels.dl{year}.txt"))
    weights = fit_weights(runs[fitted_on], qrels[fitted_on])
    values = [
        measure(fuse(runs[tested_on], "rrf", given), qrels[tested_on], parse_measures(["nDCG@10"]))[0]["nDCG@10"]
        for given in (None, weights)
    ]
    assert values[1] > values[0] + 0.02


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["qrels=qrels", "weights=[1,1]"], "qrels=qrels and weights=[1.0, 1.0] both decide the weights"),
        (["qrels=nope"], "nope: no such file, and not an ir_datasets id"),
        (["qrels=qrels", "measure=nDGC@10"], "measure"),
        (["runs=[a.run]"], "runs=['a.run']: must have at least 2 values, not 1"),
        (["runs=[a.run,nope.run]"], "runs=['a.run', 'nope.run']: nope.run: no such file"),
        (["runs=[a.run,bad.run]"], "bad.run:2: score 'nan' is not finite"),
        (["runs=[a.run,other.run]"], "the runs have no query in common"),
        (["weights=[1]"], "weights=[1.0]: must have one value for each of runs, which has 2"),
        (["weights=[1,0]"], "weights=[1.0, 0.0]: 0.0: must be above 0"),
        (["method=rff"], "method=rff is unknown: choose one of rrf, mean-rank, z-score"),
        (["k=-1"], "k=-1.0: must be at least 0"),
        (["run_depth=0"], "run_depth=0: must be at least 1"),
        (["output=b.run"], "output=b.run: is one of the inputs, which would be lost"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(files, tmp_path, overrides, message):
    (tmp_path / "bad.run").write_text("q Q0 a 1 2 x\nq Q0 b 2 nan x\n")
    (tmp_path / "other.run").write_text("r Q0 a 1 2 x\n")
    (tmp_path / "qrels").write_text("q 0 a 1\n")
    before = (tmp_path / "b.run").read_text()
    done = run_fuse(*files, *overrides, cwd=tmp_path)
    assert done.returncode == 2 and f"error: {message}" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "f.run").exists() and (tmp_path / "b.run").read_text() == before


def test_z_scores_are_those_worked_by_hand():
    # mean 5, deviations -3 -1 -1 -1 0 0 2 4, squares add up to 32 over 8: the standard deviation is 2
    assert z_scores(np.array([2.0, 4, 4, 4, 5, 5, 7, 9])).tolist() == pytest.approx(
        [-1.5, -0.5, -0.5, -0.5, 0, 0, 1, 2], abs=1e-15
    )


@pytest.mark.parametrize("scores", [[], [3.0], [0.1, 0.1, 0.1], [1e300, 1e300]])
def test_z_scores_of_equal_scores_are_zero(scores):
    z = z_scores(np.array(scores))
    assert z.dtype == np.float64
    assert z.tolist() == [0.0] * len(scores)


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200, 5e307])
def test_z_scores_do_not_depend_on_the_scale(scale):
    assert z_scores(np.array([1.0, 3.0]) * scale).tolist() == pytest.approx([-1, 1])


def test_z_scores_of_half_precision_are_computed_in_float64():
    scores = np.array([1000.5, 1001, 1003], np.float16)
    assert z_scores(scores).tolist() == z_scores(scores.astype(np.float64)).tolist()
