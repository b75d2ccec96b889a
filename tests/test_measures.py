"""Measures: trec_eval's order for all of them, and what cannot be computed is refused before anything is trained."""

import math

import ir_measures
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.config.checks import check_evaluate, check_train
from distill.config.measures import parse_measures
from distill.errors import InputError
from distill.evaluation.averages import measure_rows
from distill.evaluation.measures import measure, trec_order, try_measures
from distill.evaluation.tasks import read_task
from distill.sources.qrels import read_qrels
from distill.sources.runs import read_run
from tests.helpers.commands import run
from tests.helpers.configuration import compose_config
from tests.helpers.rankings import QRELS, ranked

BY_NUMBER = {query_id[1:]: grades for query_id, grades in QRELS.items()}  # gdeval.pl wants queries to be numbers


# Scores that tie, that tie as float32 alone, and ids whose order differs from code unit to code unit
SCORES = st.sampled_from([0.0, -0.0, 1.0, 1.0 + 1e-9, 2.0**24, 2.0**24 + 1, 1e39, 1e40, -3.5])
IDS = st.sampled_from(["a", "B", "b", "10", "9", "é", "z", "\ue000", "𝄞", "日本"])


@settings(max_examples=200, derandomize=True)
@given(scores=st.dictionaries(IDS, SCORES, min_size=1), grades=st.dictionaries(IDS, st.integers(-1, 3), min_size=1))
def test_every_measure_sees_the_order_of_trec_eval(scores, grades):
    untouched = pytrec_eval.RelevanceEvaluator({"q": grades}, ["ndcg_cut_3", "recip_rank", "map", "P_1"])
    theirs = untouched.evaluate({"q": scores})["q"]
    ours, _ = measure({"q": ranked(scores)}, {"q": grades}, parse_measures(["nDCG@3", "RR", "AP", "P@1", "RR@100"]))
    assert [ours[name] for name in ("nDCG@3", "RR", "AP", "P@1")] == pytest.approx(
        [theirs[name] for name in ("ndcg_cut_3", "recip_rank", "map", "P_1")]
    )
    assert ours["RR@100"] == pytest.approx(ours["RR"])  # of another program


def test_ties_are_ordered_by_id_descending_as_bytes():
    tied = ranked(dict.fromkeys(["10", "9", "B", "b", "é", "z", "\ue000", "𝄞"], 1.0) | {"best": 1.5})
    assert trec_order(tied) == ["best", "𝄞", "\ue000", "é", "z", "b", "B", "9", "10"]


@pytest.mark.shared
def test_reciprocal_ranks_with_and_without_a_cut_off_agree_on_trec_dl_2019(shared):
    folder = shared / "data" / "trec-dl-2019"
    files = [f"task.run={folder / 'colbert.run.gz'}", f"task.qrels={folder / 'qrels.txt'}"]
    files.append('task.measures=["RR(rel=2)","RR(rel=2)@10","RR(rel=2)@100"]')  # as the README quotes them
    task = read_task(compose_config("evaluate", "task=files", *files).task, texts=False)
    values = [*measure_rows(task, {"x": task.run})[0].values()]
    assert [round(value, 4) for value in values] == [0.8671, 0.8671, 0.8671]
    run, qrels = read_run(str(folder / "colbert.run.gz")), read_qrels(str(folder / "qrels.txt"))
    untouched = {q: dict(zip(one.doc_ids, one.scores.tolist(), strict=True)) for q, one in run.items()}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, ["recip_rank"], relevance_level=2).evaluate(untouched)
    assert values[0] == pytest.approx(sum(one["recip_rank"] for one in theirs.values()) / len(qrels))


def test_measures_with_gains_or_judged_only_leave_the_others_alone():
    run = {"q": ranked({"c": 3.0, "a": 2.0, "b": 1.0, "x": 0.0})}
    qrels = {"q": {"a": 1, "b": 2, "c": 0}}
    names = ["nDCG(gains={1:9})@10", "nDCG@10", "P(judged_only=True)@5", "NumRet"]
    together = measure(run, qrels, parse_measures(names))[0]
    assert [*together] == names
    assert together == {name: measure(run, qrels, parse_measures([name]))[0][name] for name in names}
    assert together["NumRet"] == 4 and together["nDCG@10"] == pytest.approx(0.6199, abs=5e-5)


def test_a_count_is_a_mean_over_queries_like_all_else():
    run = {"q1": ranked({"a": 3.0, "b": 2.0}), "q2": ranked({"a": 3.0, "b": 2.0, "c": 1.0, "d": 0.5})}
    means, per_query = measure(run, {"q1": {"a": 1}, "q2": {"a": 1}}, parse_measures(["NumRet", "nDCG@10"]))
    assert [values["NumRet"] for values in per_query.values()] == [2, 4] and means["NumRet"] == 3


def test_values_stand_in_the_order_of_the_run_and_of_the_names():
    run = {"q3": ranked({"d3": 1.0}), "unjudged": ranked({"d1": 1.0}), "q1": ranked({"d1": 1.0}), "q4": ranked({})}
    _, per_query = measure(run, QRELS, parse_measures(["RR@10", "Judged@3", "nDCG@10"]))
    assert [*per_query] == ["q3", "q1", "q4", "q2"]
    assert all([*values] == ["RR@10", "Judged@3", "nDCG@10"] for values in per_query.values())
    assert per_query["q4"] == per_query["q2"] == {"RR@10": 0, "Judged@3": 0, "nDCG@10": 0}  # nothing was retrieved


def test_one_measure_under_two_names_is_measured_once():
    assert [str(one) for one in parse_measures(["MRR@10", "RR@10", "MAP", "nDCG()@5"])] == ["RR@10", "AP", "nDCG@5"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nDGC@10", "unknown to ir_measures: write it as in nDCG@10"),
        ("P@0", "a cut-off must be 1 or more"),
        ("nDCG@0", "a cut-off must be 1 or more"),
        ("RR(cutoff=0)", "a cut-off must be 1 or more"),
        ("nDCG@-1", "cannot be read \\(it has a negative number\\)"),
        ("P@1.5", "cutoff=1.5 is impossible"),
        ("P@True", "cutoff=True is impossible"),
        ("P", "needs its cutoff: give it as in P@10"),
        ("INST", "needs its max_rel: give it as in INST\\(max_rel=…\\)"),
        ("AP_IA@3", "has no cutoff"),
        ("nDCG(cut=3)", "has no cut: leave it out \\(it takes cutoff"),
        ("IPrec@1.5", "the recall must be 0 to 1"),
        ("IPrec@0.125", "the recall must be 0 to 1 with two digits"),
        ("RBP(p=1)", "p=1 is impossible"),
        ("nDCG(@10", "cannot be read"),
        ("", "cannot be read"),
    ],
)
def test_a_measure_that_makes_no_sense_is_refused_by_its_name(name, message):
    with pytest.raises(InputError, match=f"measure .*: {message}"):
        parse_measures([name])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("alpha_nDCG@10", "it needs judgments of subtopics, which are not read"),
        ("RBP(rel=1)", "cwl_eval"),
        ("INST(max_rel=3)", "cwl_eval"),
        ("ERR@20", "query ids must be numbers, grades 4 at most|Unsupported"),
        ("ERR", "Unsupported"),
        ("Accuracy@3", "it has no value for some queries"),
        ("P(rel=0)@3", "relevance_level should be positive"),
        ("nDCG@100000000000000000000", "KeyError"),
    ],
)
def test_a_measure_that_cannot_be_computed_here_is_refused(name, message, capfd):
    if message == "cwl_eval" and ir_measures.cwl_eval.is_available():
        pytest.skip("cwl_eval is installed")
    with pytest.raises(InputError, match=f"measure .*: cannot be computed here .*{message}.*: choose another$"):
        try_measures(parse_measures([name]), QRELS)
    assert capfd.readouterr() == ("", "")  # the one line alone


def test_what_ends_its_process_is_refused():
    one = ir_measures.P @ 0  # parse_measures lets nothing of the kind pass
    with pytest.raises(InputError, match="measure P@0: cannot be computed here \\(it ends the process\\)"):
        try_measures([one], QRELS)


def test_every_name_of_ir_measures_is_measured_or_refused(tmp_path):
    """In a process of its own, which none of them may end: with a cut-off and without one."""
    names = [name + more for name in sorted(ir_measures.measures.registry) for more in ("", "@3", "@0.5")]
    code = f"""
import math
from distill.config.measures import parse_measures
from distill.errors import InputError
from distill.evaluation.measures import measure, try_measures
from tests.helpers.rankings import QRELS, ranked
run = {{"q1": ranked({{"d2": 2.0, "d1": 1.0}}), "other": ranked({{"d1": 1.0}})}}
for name in {names!r}:
    try:
        measures = parse_measures([name])
        try_measures(measures, QRELS)
    except InputError:
        continue
    means, per_query = measure(run, QRELS, measures)
    assert {{*per_query}} == {{*QRELS}}, name
    assert all(math.isfinite(value) for value in means.values()), name
    print(*measures)
"""
    (tmp_path / "script.py").write_text(code)
    able = set(run(tmp_path / "script.py", check=True).stdout.split())
    expected = "nDCG nDCG@3 AP AP@3 RR RR@3 P@3 R@3 Success@3 Rprec Bpref infAP Judged@3 SetP IPrec@0.5 Compat NumRet"
    assert set(expected.split()) <= able
    assert not {"Accuracy@3", "alpha_nDCG@3", "StRecall@3", "ERR@3"} & able


def test_a_measure_may_depend_on_what_the_ids_look_like():
    if not ir_measures.gdeval.is_available():
        pytest.skip("perl is not installed")
    measures = parse_measures(["ERR@20", "nDCG(dcg='exp-log2')@3"])
    try_measures(measures, BY_NUMBER)
    values = measure({"1": ranked({"d5": 2.0, "d1": 1.0})}, BY_NUMBER, measures)[1]["1"]
    assert values["ERR@20"] == pytest.approx(3 / 16 + (1 - 3 / 16) * (1 / 16) / 2, abs=1e-5)


def test_a_value_that_is_no_number_is_never_written(monkeypatch):
    monkeypatch.setattr("ir_measures.calc", lambda *_: ({}, []))
    with pytest.raises(InputError, match="measure nDCG@10: has no value for query q1 \\(nan\\)"):
        measure({"q1": ranked({"d1": 1.0})}, QRELS, parse_measures(["nDCG@10"]))


@pytest.fixture
def deep(tmp_path) -> list[str]:
    """A run of 1,000 passages a query with the relevant one at place 300, and its judgments."""
    lines = [f"q1 Q0 d{place} {place} {-place} x\n" for place in range(1, 1001)]
    (tmp_path / "deep.run").write_text("".join(lines))
    (tmp_path / "qrels.txt").write_text("q1 0 d300 1\n")
    return ["task=files", f"task.run={tmp_path / 'deep.run'}", f"task.qrels={tmp_path / 'qrels.txt'}"]


def test_a_run_that_is_measured_as_it_stands_is_measured_whole(deep):
    cfg = compose_config("evaluate", *deep, "task.measures=[R@1000,RR]")
    check_evaluate(cfg)
    whole = read_task(cfg.task, texts=False)
    assert [*measure_rows(whole, {"x": whole.run})[0].values()] == [1.0, pytest.approx(1 / 300)]
    assert cfg.task.depth == "auto" and len(whole.run["q1"]) == 1000


@pytest.mark.parametrize(
    ("depth", "reranked", "expected"),
    [("auto", True, 100), ("auto", False, 1000), ("7", True, 7), ("7", False, 7), ("null", True, 1000)],
)
def test_the_depth_is_100_where_a_model_re_ranks_unless_it_is_given(deep, depth, reranked, expected):
    cfg = compose_config("evaluate", *deep, f"task.depth={depth}")
    assert len(read_task(cfg.task, texts=False, reranked=reranked).run["q1"]) == expected


def test_a_measure_that_looks_below_a_depth_nobody_chose_is_refused(deep, collection, tmp_path):
    texts = [f"task.{name}={collection[name]}" for name in ("passages", "queries")]
    cfg = compose_config("evaluate", *deep, *texts, "model=x", "task.measures=[nDCG@10,R@1000]")
    expected = "measure R@1000: looks below the 100 passages a query that task.depth=auto leaves: set task.depth=1000"
    with pytest.raises(InputError, match=expected):
        check_evaluate(cfg)
    cfg.model = None
    check_evaluate(cfg)
    cfg.task.run, cfg.task.measures = "bm25", ["R@2000"]
    with pytest.raises(InputError, match="looks below the 1000 passages a query"):
        check_evaluate(cfg)
    train = compose_config("train", "validation.measures=[R@1000]")
    with pytest.raises(InputError, match="that validation.depth=auto leaves: set validation.depth=1000"):
        check_train(train)


def test_a_measure_that_looks_below_a_chosen_depth_is_warned_of(deep, caplog):
    cfg = compose_config("evaluate", *deep, "task.depth=5", "task.measures=[nDCG@10]")
    check_evaluate(cfg)
    read_task(cfg.task, texts=False)
    assert "files: nDCG@10 looks below task.depth=5, where there are no passages" in caplog.text


@pytest.mark.parametrize("depth", ["0", "-3", "1.5", "all", "true", "[1]"])
def test_a_depth_that_is_none_is_refused(deep, depth):
    with pytest.raises(InputError, match="^task.depth=.*: must be at least 1, auto, or null for all$"):
        check_evaluate(compose_config("evaluate", *deep, f"task.depth={depth}"))


def test_the_mean_of_a_validation_has_one_set_of_measures(deep):
    suite = ["+validation.tasks.a.measures=[RR@10]", "validation.means=[arithmetic]"]
    with pytest.raises(InputError, match="validation.tasks.a.measures=.*RR@10.*: a validation has one mean"):
        check_train(compose_config("train", *suite))


def test_measuring_keeps_what_trec_eval_computes_of_tied_lists_by_hand():
    run = {"q": ranked({"a": 1.0, "b": 1.0, "c": 1.0})}  # ordered c, b, a
    values = measure(run, {"q": {"a": 1}}, parse_measures(["RR", "RR@2", "RR@3", "nDCG@3", "Judged@1"]))[0]
    assert values == {"RR": pytest.approx(1 / 3), "RR@2": 0, "RR@3": pytest.approx(1 / 3),
                      "nDCG@3": pytest.approx(1 / math.log2(4)), "Judged@1": 0}  # fmt: skip


@pytest.mark.parametrize("grade", [-1, -2, -1000])
def test_grades_below_zero_are_not_relevant_and_end_no_process(tmp_path, grade):
    code = (
        "from distill.config.measures import parse_measures; from distill.evaluation.measures import measure;"
        "from distill.sources.run_files import RankedList; import numpy as np;"
        f"qrels = {{'q0': {{'d1': 1, 'd2': 0}}, 'q1': dict.fromkeys(['d1', 'd2', 'd3'], {grade}), 'q2': {{'d1': 1}}}};"
        "one = RankedList.in_order(['d1'], np.ones(1)); run = {'q0': one, 'q1': one};"
        "names = ['nDCG@10', 'AP', 'AP(rel=2)', 'R@5', 'Rprec', 'Bpref', 'Judged@3'];"
        "print([v for v in measure(run, qrels, parse_measures(names))[1]['q1'].values()])"
    )
    (tmp_path / "script.py").write_text(code)
    done = run(tmp_path / "script.py")
    assert (done.returncode, done.stdout) == (0, "[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]\n"), done.stderr
