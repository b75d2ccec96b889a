"""`distill judge`: grades in answers, the pool, Cohen's kappa beside published and independent values, the files."""

import json
import logging

import numpy as np
import pytest
from omegaconf import OmegaConf

from distill.commands.judge import check, compared, judge
from distill.config.local_files import with_local_files
from distill.config.saved import saved_text
from distill.errors import InputError
from distill.evaluation.kappa import cohens_kappa, confusion
from distill.judging.answers import grade_in
from distill.judging.files import is_same_model
from distill.judging.people import People
from distill.judging.pool import Pair, read_pool
from distill.sources.qrels import read_qrels
from distill.teachers.answer import Answer
from distill.teachers.journal import Journal
from distill.teachers.prompt import read_prompt
from examples.llm_server import given_grade
from tests.helpers.chat_server import GUARD
from tests.helpers.configuration import compose_config

FILES = ("qrels.txt", "results.json")


@pytest.mark.parametrize(("answer", "grade"), [
    ("grade: 2", 2), ("2", 2), (" **3**.", 3), ("Grade: **1**", 1), ("##final score: 0", 0), ('{"grade": 3}', 3),
    ("Grade:\n2", 2), ("I think about M: 3 and T: 2.\nFinal grade: 1", 1), ("\\boxed{2}", 2),
    ("<think>grade: 3?</think>grade: 1", 1), ("2/3", 2), ("score: 2 out of 3", 2), ("Score of 3.0", 3), ("评分：2", 2),
    ("grade: 1\n\nIt is on topic, but does not deserve grade 2.", 1), ("grade: 3\nGrade 0 is for unrelated ones.", 3),
    ("Grade: 2\nConfidence score: 3", 2), ("grade: 2\nrelevance: high, trust score: 1", 2), ("**Grade**\n\n2", 2),
    ("Final answer: 2", 2), ("Answer: 2", 2), ("1 (it is about bees)", 1), ("2 - partly\nIt says so.", 2),
    ("1\n\nReason: it does not reach grade 2.", 1), ("1. The passage falls short of grade 2.", None),
    ("2\n\nThe passage answers the query only in part; for grade 3 it would have to name the year.", 2),
    ("Grade: 1 (a grade of 2 would need an answer)", 1), ("Grade 1, because grade 2 would require an answer.", 1),
    ("The grade is 1. A grade of 2 would need an answer.", 1), ("Not grade 3, only 2.", None),
    ("On the scale of 0 to 3, grade: 2\nReason: the grade 3 requires full answer.", 2),
    ("Grade 3: perfectly relevant. Grade 0: irrelevant.\nAnswer: 1", 1), ("It is about bees.\n\n2", 2),
    ("Grade 3: perfectly relevant. Grade 0: irrelevant.", None), ("Grade 2: it answers in part.", 2),
    ("It deserves a score of 2, since it answers in part.", 2), ("1\nIt fits.\n2", None), ("I give it grade 2.", 2),
    ("It isn't quite a grade of 3, but a grade of 2.", 2), ("Perhaps grade 1, perhaps grade 2.", None),
    ("grade: 3\nOn second thought:\ngrade: 2", 2), ("grade: 0\nNo: the grade is 2", None),
    ("2 - 3", None), ("1. The first sentence fits", None),
    ("", None), ("The passage answers the query.", None), ("grade: 4", None), ("grade: 2.5", None), ("-1", None),
    ("grade: -1", None), ("grade: 1 or 2", None), ("grade: 1-2", None), ("1 to 2", None), ("grade: NUMBER", None),
    ("<think>grade: 3", None), ("12", None), ("It has 3 parts.", None), ("9" * 5000, None), ("upgrades 2", None),
    ("It would be grade 3 if it answered the query.", None), ("It would be a grade of 3 if it answered.", None),
    ("To earn grade 3 it must answer the query. It does not, so 1.", None), ("It could get a score of 3.", None),
    ("Grade 3 was considered, but the passage is off-topic.", None), ("It fails to reach grade 2.", None),
    ("It fails to reach a grade of 2.", None), ("A grade of 3 was considered.", None), ("Maybe grade: 3?", None),
    ("I would give it grade 3 if it named the year.", None), ("If it named the year, I would give it grade 3.", None),
    ("I would give it a grade of 2.", 2), ("It does not name the year, so I'd give it grade 2.", 2), ("2?", None),
    ("It deserves grade 1.", 1), ("The passage is on topic, so the grade is 1.", 1), ("The grade is 1. Or grade 2?", 1),
    ("The grade is 1, perhaps grade 2.", None), ("Okay, let me see. Grade 3: perfectly relevant.", None),
    ("Score: 3 out of 10", None), ("Score: 3/10", None), ("Score: 3%", None), ("2/5", None), ("2 (out of 5)", None),
    ("Score: 3/3", 3), ("Score: 2 points out of 5 points", None), ("The score is 1 of 3.", 1),
    ("Okay, let me see. Grade 0 passages have nothing to do with it. Let's see", None),
    ("<answer>2</answer>", 2), ("<grade>2</grade>", 2), ("The final grade is $\\boxed{2}$", 2),
    ('{"reason": "It says when.", "grade": 2}', 2), ("```json\n{\"grade\": 2}\n```", 2), ("```\n2\n```", 2),
])  # fmt: skip
def test_only_what_is_surely_a_grade_is_one(answer, grade):
    assert grade_in(answer) == grade


@pytest.mark.parametrize(("answer", "grade"), [
    ("grade: 2", 2), ("2", 2), ("grade: 2\nReason: it tells", 2), ("1\n\nIt is about bees, but", 1),
    ("The grade is 3 if", None), ("The grade is 2, since it", None), ("Grade 2: it answers", None),
    ("Okay, let me see. Grade 0 passages have nothing to do with it. A score of 3", None),
    ("2 - partly, it", None), ("It has two parts:\n1", None),
])  # fmt: skip
def test_in_an_answer_that_was_cut_only_a_line_is_a_grade(answer, grade):
    assert grade_in(answer, is_cut=True) == grade


def test_kappa_is_that_of_cohen_1960_and_worked_by_hand():
    # Cohen (1960): 60% agreement by chance of 41%, observed 70%: kappa .492
    assert cohens_kappa(np.array([[88, 14, 18], [10, 40, 10], [2, 6, 12]])) == pytest.approx(0.492, abs=5e-4)
    # Rows 25, 25 and columns 30, 20: by chance half agree, and 35 of 50 do
    assert cohens_kappa(np.array([[20, 5], [10, 15]])) == pytest.approx(0.4)
    # Grades 0 and 1, 1 and 1, 2 and 0: their squared differences sum to 5; by chance, each meets each
    pairs = [(0, 1), (1, 1), (2, 0)]
    expected = sum((one - other) ** 2 for one, _ in pairs for _, other in pairs) / 3
    assert cohens_kappa(confusion(pairs, 4), quadratic=True) == pytest.approx(1 - 5 / expected)
    assert cohens_kappa(confusion([(2, 2)] * 5, 4)) is None is cohens_kappa(confusion([], 4), quadratic=True)
    assert cohens_kappa(confusion([(0, 0), (3, 3)], 4), quadratic=True) == 1


def test_kappa_is_that_of_scikit_learn():
    # cohen_kappa_score of scikit-learn 1.9.1, without and with quadratic weights, and of grades above 1
    table = np.array([[40, 12, 3, 1], [9, 20, 10, 2], [2, 8, 18, 9], [0, 1, 6, 25]])
    assert cohens_kappa(table) == pytest.approx(0.4890061565523306)
    assert cohens_kappa(table, quadratic=True) == pytest.approx(0.776191422326928)
    pairs = [(one, other) for one in range(4) for other in range(4) for _ in range(table[one, other])]
    assert confusion(pairs, 4).tolist() == table.tolist()
    binary = confusion(((one > 1, other > 1) for one, other in pairs), 2)
    assert cohens_kappa(binary) == pytest.approx(0.6686381783232294)
    below_chance = np.array([[1, 2, 3, 3], [3, 1, 0, 3], [1, 0, 2, 2], [1, 5, 1, 2]])
    assert cohens_kappa(below_chance) == pytest.approx(-0.07462686567164178)
    assert cohens_kappa(below_chance, quadratic=True) == pytest.approx(-0.104)


def test_people_on_another_scale_are_compared_by_relevance_only():
    grades = {Pair("q", f"d{n}"): n % 4 for n in range(8)} | {Pair("q", "x"): None}
    people = People.of(grades, {"q": {f"d{n}": int(n % 4 > 1) for n in range(8)} | {"x": 1}}, "h", 2, 1)
    assert people.results() == {"human/judgments": 8, "human/kappa": 1.0}
    assert people.table_lines()[-2:] == ["| no | 4 | 0 |", "| yes | 0 | 4 |"]
    lines = dict(people.describe())
    assert lines["judged by people"] == "8 of the same passages: too few to tell, 50 or more would do"
    assert lines["Cohen's kappa"] == "1.00 (relevant from grade 2 on, for people 1)"
    people = People.of(grades, {"q": {f"d{n}": n % 4 for n in range(7)}, "other": {"d1": 3}}, "h", 2, 2)
    assert people.results() == {"human/judgments": 7, "human/kappa": 1.0, "human/kappa_quadratic": 1.0}
    assert people.table_lines()[-1] == "| 3 | 0 | 0 | 0 | 1 |"
    people = People.of(grades, {"q": {f"d{n}": 1 for n in range(8)}}, "h", 2, 1)  # only what is relevant was judged
    assert people.results() == {"human/judgments": 8}
    assert dict(people.describe())["Cohen's kappa"].startswith("not known, since people or the judge gave one grade")
    with pytest.raises(InputError, match="judges none of the 9 passages"):
        People.of(grades, {"q": {"y": 1}}, "h", 2, 2)


def test_the_prompt_asks_for_what_is_read():
    prompt = read_prompt("judge", "judge")
    [system, user] = prompt.fill("how bees find home", ["Bees steer by the sun."])
    assert user["content"].startswith("Query: how bees find home\nPassage: Bees steer by the sun.\nGrade the passage:")
    assert user["content"].endswith("grade: NUMBER") and grade_in(user["content"]) is None
    assert given_grade(user["content"]) == "grade: 1" and "grade" in system["content"]


def test_judgments_are_kept_where_people_judged_only_what_has_no_grade(caplog):
    grades, qrels = {Pair("q", "a"): None, Pair("q", "b"): 2}, {"q": {"a": 1}}
    assert compared(grades, qrels, "human.txt", 2, 2) is None
    assert "human.txt: judges none of the 2 passages that were graded" in caplog.text
    assert compared({Pair("q", "a"): 1}, qrels, "human.txt", 2, 2).number == 1


@pytest.mark.parametrize(("one", "other", "same"), [
    ("Org/Model-7B", "model-7b", True), ("gpt-4o", "openai/gpt-4o", True), ("gpt-4o", "gpt-4o-mini", False),
    ("/models/a/", "a", True),
])  # fmt: skip
def test_a_model_is_known_by_its_name(one, other, same):
    assert is_same_model(one, other) == same


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))


def configured(collection, server, *more):
    llm = {"base_url": server.url, "model": "judge", "concurrency": 3, "timeout": GUARD, "retries": 3}
    overrides = [*(f"{name}={collection[name]}" for name in ("passages", "queries")), "journal=none", "depth=5"]
    overrides += [f"runs=[{collection['first_stage']},{collection['teacher']}]"]
    return compose_config("judge", *overrides, *(f"teacher.llm.{key}={value}" for key, value in llm.items()), *more)


def judged(collection, server, directory, *more) -> dict[str, float]:
    return run(configured(collection, server, *more), directory)


def run(cfg, directory) -> dict[str, float]:
    cfg = cfg.copy()  # a run notes in it that it is resumed
    OmegaConf.resolve(cfg.teacher)
    check(cfg)
    return judge(cfg, directory)


def texts_of(path) -> dict[str, str]:
    return dict(line.split("\t") for line in path.read_text().splitlines())


def test_the_pool_is_the_top_of_each_run_in_an_order_that_shows_none(collection, serve):
    cfg = configured(collection, serve())
    pool = read_pool(cfg, with_local_files(cfg))
    expected = set()
    for name in ("first_stage", "teacher"):
        rows = [line.split() for line in collection[name].read_text().splitlines()]
        expected |= {(query_id, doc_id) for query_id, _, doc_id, rank, *_ in rows if int(rank) <= 5}
    assert {*pool.pairs} == expected and len(pool.pairs) == len(expected) > 30
    assert pool.pairs != sorted(pool.pairs) and pool.pairs == read_pool(cfg, with_local_files(cfg)).pairs
    cfg.runs = cfg.runs[::-1]  # the order of the runs does not show either
    assert pool.pairs == read_pool(cfg, with_local_files(cfg)).pairs
    cfg.seed = 1
    assert pool.pairs != read_pool(cfg, with_local_files(cfg)).pairs
    cfg.num_queries, cfg.depth = 2, 1
    assert len(read_pool(cfg, with_local_files(cfg)).pairs) <= 4


def test_grades_are_qrels_of_the_pool(collection, serve, tmp_path, capsys, caplog):
    caplog.set_level(logging.INFO)
    server = serve()
    results = judged(collection, server, tmp_path / "out", f"human={collection['qrels']}", "teacher_name=Org/Judge")
    qrels = read_qrels(str(tmp_path / "out" / "qrels.txt"))
    passages, queries = texts_of(collection["passages"]), texts_of(collection["queries"])
    for query_id, grades in qrels.items():
        for doc_id, grade in grades.items():
            assert given_grade(f"Query: {queries[query_id]}\nPassage: {passages[doc_id]}") == f"grade: {grade}"
    assert sum(map(len, qrels.values())) == results["judgments"] == results["passages"] and results["unusable"] == 0
    assert results["requests"] == sum(server.asked.values()) == len(server.asked) <= results["passages"]
    assert all(re_one.count("Passage: ") == 1 for re_one in server.asked)  # one passage in each request
    assert sum(results[f"grade/{grade}"] for grade in range(4)) == results["passages"] and results["grade/0"] > 0
    assert results == json.loads((tmp_path / "out" / "results.json").read_text()) and results["same_as_teacher"] == 1
    common = [(doc_id, query_id) for query_id, one in read_qrels(str(collection["qrels"])).items() for doc_id in one
              if doc_id in qrels[query_id]]  # fmt: skip
    assert results["human/judgments"] == len(common) and -1 <= results["human/kappa_quadratic"] <= 1
    card = (tmp_path / "out" / "card.md").read_text()
    assert "people \\ judge" in card and "teacher: Org/Judge, the same model" in card
    assert "too few to tell" in card and "Cohen's kappa" in capsys.readouterr().out
    assert caplog.messages[-1].startswith("the judge is the teacher, Org/Judge")
    again = ["teacher_name=null", "human=null", f"resume={tmp_path / 'out'}"]
    rejudged = judged(collection, server, tmp_path / "out", *again)
    assert "same_as_teacher" not in rejudged and "not known" in (tmp_path / "out" / "card.md").read_text()
    assert sum(server.asked.values()) == results["requests"] == rejudged["requests"]  # no answer is paid for twice


def test_what_is_no_grade_is_asked_again_and_then_left_out(collection, serve, tmp_path, caplog):
    server = serve(script=["refusal", "good", "refusal", "refusal", 400])
    more = ["teacher.llm.concurrency=1", "tries=2"]
    results = judged(collection, server, tmp_path / "out", *more)
    assert results["unusable"] >= 2 and results["judgments"] == results["passages"] - results["unusable"]
    assert len((tmp_path / "out" / "qrels.txt").read_text().splitlines()) == results["judgments"]
    assert f"{results['unusable']} of {results['passages']} passages have no grade" in caplog.text
    card = (tmp_path / "out" / "card.md").read_text()
    assert "- the first without a grade: query q" in card and "- requests refused: 1" in card
    server = serve(script=["refusal"] * 99)
    message = "16 of 16 answers are no grades from 0 to 3, more than max_unusable=0.2; what came back: 16 × `I cannot.`"
    with pytest.raises(InputError, match=message):
        judged(collection, server, tmp_path / "useless", "teacher.llm.concurrency=1", "tries=1")
    assert sum(server.asked.values()) == 16 and not (tmp_path / "useless" / "qrels.txt").exists()


def test_prose_that_was_cut_is_no_grade_and_more_tokens_are_the_remedy(collection, serve, tmp_path, monkeypatch):
    cut = Answer("The grade is 2, since", 1, 9, 0.0, finish="length")
    monkeypatch.setattr("distill.teachers.endpoint.read_completion", lambda *_, **__: cut)
    with pytest.raises(InputError, match="finish_reason: length.*raise teacher.llm.max_tokens"):
        judged(collection, serve(), tmp_path / "out", "teacher.llm.concurrency=1", "tries=1")


def test_a_stopped_judge_ends_in_the_same_files_and_pays_nothing_twice(collection, serve, tmp_path, monkeypatch):
    server = serve()
    cfg = configured(collection, server, "teacher.llm.concurrency=1", "num_queries=3")
    run(cfg, tmp_path / "whole")
    expected = {name: (tmp_path / "whole" / name).read_text() for name in FILES}
    add = Journal.add
    server.asked.clear()
    for stop in (7, 1):

        def stopping(journal, key, answer, left=[stop]):  # noqa: B006 - counts down
            add(journal, key, answer)
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt

        monkeypatch.setattr(Journal, "add", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(cfg, tmp_path / "out")
        assert not (tmp_path / "out" / "qrels.txt").exists()
    monkeypatch.setattr(Journal, "add", add)
    run(cfg, tmp_path / "out")
    assert {name: (tmp_path / "out" / name).read_text() for name in FILES} == expected
    assert max(server.asked.values()) == 1
    with pytest.raises(InputError, match="holds the finished judgment of this configuration"):
        run(cfg, tmp_path / "out")
    with pytest.raises(InputError, match="belongs to another configuration \\(depth: 5 -> 6\\)"):
        cfg.depth = 6
        run(cfg, tmp_path / "out")


def test_the_cost_is_said_before_and_stops_it(collection, serve, tmp_path, capsys):
    prices = ["teacher.llm.price_in=10000", "teacher.llm.price_out=0", "teacher.llm.concurrency=1"]  # 1 a request
    server = serve()
    assert judged(collection, server, tmp_path / "dry", "dry_run=true", *prices) == {}
    said = capsys.readouterr().out
    assert said.startswith("6 queries, ") and " requests, about " in said and ", cost " in said and not server.asked
    with pytest.raises(InputError, match="max_cost=3.0: reached after 3 answers, at 3.0000: raise it and resume"):
        judged(collection, server, tmp_path / "out", "teacher.llm.max_cost=3", *prices)
    assert sum(server.asked.values()) == 3


def test_the_teacher_is_known_by_its_annotation(collection, serve, tmp_path):
    files = [f"{name}={collection[name]}" for name in ("passages", "queries")]
    cfg = compose_config("annotate", *files, f"run={collection['first_stage']}", "teacher.llm.model=other")
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "config.yaml").write_text(saved_text(cfg))
    results = judged(collection, serve(), tmp_path / "out", f"annotation={tmp_path}/teacher")
    assert results["same_as_teacher"] == 0 and "teacher: other, another model" in (tmp_path / "out/card.md").read_text()


@pytest.mark.parametrize(("overrides", "message"), [
    (["runs=[]"], "runs=\\[\\]: must have at least 1"), (["min_grade=4"], "min_grade=4: must be between 1 and 3"),
    (["llm@teacher.llm=cross-encoder", "teacher.llm.model=m"], "it gives scores, no grades: choose http or local"),
    (["human={qrels}", "queries={other}"], "has none of the 1 queries"),
    (["passages={queries}"], "is not in .*queries"),
    (["human={other_qrels}"], "judges none of the .* passages that were graded"),
])  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(collection, serve, tmp_path, overrides, message):
    (tmp_path / "other.tsv").write_text("x\tsomething\n")
    (tmp_path / "other_qrels.txt").write_text("q1 0 nothing 1\n")
    paths = {name: str(path) for name, path in collection.items()}
    paths |= {"other": f"{tmp_path}/other.tsv", "other_qrels": f"{tmp_path}/other_qrels.txt"}
    server = serve()
    with pytest.raises(InputError, match=message):
        if "llm@" in overrides[0]:
            check(compose_config("judge", *(f"{one}={paths[one]}" for one in ("passages", "queries")),
                                 f"runs=[{paths['teacher']}]", *overrides))  # fmt: skip
        judged(collection, server, tmp_path / "out", *(one.format(**paths) for one in overrides))
    assert not server.asked and not [one for one in (tmp_path / "out").glob("*") if one.is_file()]
