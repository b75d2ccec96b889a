"""The verdict at the end of a recipe: better or not, and what is named first if not."""

import json
import math
import shutil

import pytest
from transformers import AutoTokenizer

from distill.commands.verdict import add_language, give_verdict
from distill.errors import InputError
from distill.jobs import command_line
from distill.report.facts import Compared, Facts, read_facts
from distill.report.reasons import RULES, _train, likeliest
from distill.report.verdict import judge
from tests.helpers.commands import run
from tests.helpers.configuration import compose_config

FIRST = {f"q{number}": 0.1 * (number % 5) for number in range(60)}


def compared(by: float, number: int = 60, spread: float = 0.05) -> Compared:
    """A ranking that differs from the first stage by `by` on average, with a deviation of about `spread`."""
    first = dict([*FIRST.items()][:number])
    values = {one: value + by + (spread if place % 2 else -spread) for place, (one, value) in enumerate(first.items())}
    return Compared("nDCG@10", first, values)


def all_is_well(**changed) -> Facts:
    """A recipe in which every stage went well, but for what is changed."""
    facts = Facts("out", num_lists=400, num_steps=300, backbone="minilm-l12", unknown_tokens=0.0, pieces=1.1)
    facts.language, facts.shuffles, facts.is_noise, facts.loss = "english", 0.6, False, ""
    facts.judged, facts.teacher, facts.agreement = compared(0.1), compared(0.2), compared(0.3)
    for name, value in changed.items():
        setattr(facts, name, value)
    return facts


def first_named(facts: Facts) -> str:
    verdict = judge(facts)
    assert not verdict.is_better
    return verdict.reasons[0].name


def test_a_student_that_is_better_by_judgments():
    verdict = judge(all_is_well())
    assert verdict.is_better and verdict.reasons == ()
    assert verdict.line == (
        "better than the first stage by 0.100 (p < 0.001) on 60 held-out queries, by judgments: nDCG@10 0.3000 against "
        "0.2000"
    )


def test_without_judgments_it_holds_if_the_teacher_is_right():
    verdict = judge(all_is_well(judged=None, teacher=None))
    assert verdict.is_better and verdict.numbers["by"] == "agreement"
    assert verdict.line.startswith(
        "better than the first stage by 0.300 (p < 0.001) on 60 held-out queries, by agreement"
    )
    assert verdict.line.endswith("; no query is judged, so this holds if the teacher is right")


def test_a_difference_by_chance_is_not_better_and_a_loss_is_worse():
    assert judge(all_is_well(judged=compared(0.001))).line == (
        "not better than the first stage on 60 held-out queries, by judgments: nDCG@10 0.2010 against 0.2000 (+0.001, "
        "p = 0.88)"
    )
    assert judge(all_is_well(judged=compared(-0.1))).line.startswith(
        "worse than the first stage on 60 held-out queries"
    )


def test_nothing_measured_is_no_verdict():
    verdict = judge(Facts("out"))
    assert not verdict.is_better and verdict.line == "none: no held-out query was measured"


def test_how_many_queries_are_needed_by_hand():
    """Differences of -1 and 3: mean 1, deviation 2.828; 2.8 * 2.828 / sqrt(2) = 5.6; (2.8 * 2.828)^2 = 62.7."""
    two = Compared("RR", {"a": 0.0, "b": 0.0}, {"a": -1.0, "b": 3.0})
    assert two.visible == pytest.approx(5.6) and two.needed == 63
    same = Compared("RR", {"a": 0.5}, {"a": 0.5})
    tiny = all_is_well(judged=compared(0.001))  # would need 20 000 queries: too small to look for
    assert tiny.judged.needed > 10_000 and "few-heldout" not in [one.name for one in likeliest(tiny, 9)]
    assert same.needed is None and same.p == 1 and math.isnan(same.deviation)


PLANTED = {
    "few-queries": {"num_lists": 40},
    "teacher-noise": {"shuffles": 0.02, "is_noise": True, "noise_directory": "out/noise"},
    "language": {"unknown_tokens": 0.67, "language": "a language without spaces"},
    "weak-teacher": {"teacher": compared(-0.01)},
    "loss": {"loss": "the loss ended where it began (0.693 -> 0.691): try more steps than 20"},
    "unlike-teacher": {"agreement": compared(0.0)},
    "few-heldout": {"judged": compared(0.005, 10)},
}


@pytest.mark.parametrize("name", PLANTED)
def test_each_planted_failure_is_named_first_with_commands(name):
    facts = all_is_well(judged=compared(0.0), **{} if name == "few-heldout" else PLANTED[name])
    facts = all_is_well(**PLANTED[name]) if name == "few-heldout" else facts
    reason = likeliest(facts)[0]
    assert (reason.name, reason.is_found) == (name, True) and first_named(facts) == name
    assert reason.commands and all(command_line(*command).startswith("python ") for command in reason.commands)


def test_a_german_corpus_under_an_english_model_is_the_wrong_language():
    facts = all_is_well(judged=compared(0.0), language="german", pieces=1.88)
    assert first_named(facts) == "language"
    assert "in German, of which minilm-l12 knows few words: it reads a word in 1.9 pieces" in likeliest(facts)[0].text
    assert first_named(all_is_well(judged=compared(0.0, 10), language="german", pieces=1.3)) == "few-heldout"


def test_what_leads_to_the_other_is_named_first():
    facts = all_is_well(judged=compared(0.0, 8))
    for changed in PLANTED.values():
        for key, value in changed.items():
            if key != "judged":
                setattr(facts, key, value)
    assert [one.name for one in likeliest(facts, 9)] == [
        *("language", "teacher-noise", "few-queries", "weak-teacher", "loss", "unlike-teacher", "few-heldout")
    ]
    assert len(likeliest(facts)) == 3 and len(RULES) == 8


def test_a_student_that_agrees_with_noise_is_not_known_to_be_better():
    facts = all_is_well(judged=None, teacher=None, is_noise=True, shuffles=0.01)
    verdict = judge(facts)
    assert not verdict.is_better and verdict.reasons[0].name == "teacher-noise"
    assert verdict.line.startswith("not better than the first stage, as far as is known: it only repeats noise; ")


def test_what_was_not_measured_follows_what_was_found():
    facts = all_is_well(judged=None, teacher=None, agreement=compared(0.0), is_noise=None, shuffles=None)
    assert [(one.name, one.is_found) for one in likeliest(facts)] == [
        ("unlike-teacher", True), ("teacher-noise", False), ("weak-teacher", False)
    ]  # fmt: skip
    facts.ranks_pairs = True  # nothing to shuffle
    assert "teacher-noise" not in [one.name for one in likeliest(facts)]


# ---- From files --------------------------------------------------------------------------------------------------


def write_stage(place, config: dict, results: dict, **rows: dict[str, float]) -> None:
    """Write what a stage leaves: config.yaml, results.json and the values of its rows by query."""
    place.mkdir(parents=True)
    (place / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    (place / "results.json").write_text(json.dumps(results))
    for row, values in rows.items():
        name = "per_query.csv" if row == "test" else f"{row}.per_query.csv"
        lines = ["query_id,nDCG@10", *(f"{one},{value}" for one, value in values.items())]
        (place / name).write_text("\n".join(lines) + "\n")


@pytest.fixture
def recipe(tmp_path):
    """The directory of a recipe whose student is no better: the stages, without what is in the model."""
    out, passages = tmp_path / "out", tmp_path / "p.tsv"
    passages.write_text("d1\tbees fly home\nd2\tants walk\n")
    (out / "judge").mkdir(parents=True)
    (out / "judge" / "qrels.txt").write_text("q1 0 d1 1\n")
    (tmp_path / "people.txt").write_text("q1 0 d1 1\n")
    training = {
        "train": {"max_steps": None}, "optimizer": {"lr": 1e-3, "warmup": 0.1}, "backbone": {"name": "minilm-l12"},
        "data": {"passages": str(passages), "queries": "q.tsv"},
        "teacher": {"path": "out/teacher/teacher.run", "first_stage": "out/train.run"},
    }  # fmt: skip
    write_stage(out / "student", training, {"train/lists": 400, "train/steps": 300})
    lines = [{"step": 10, "train/loss": 0.69}, {"step": 300, "train/loss": 0.31}]
    (out / "student" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    llm = {"window": 20, "method": "listwise", "teacher": {"llm": {"engine": "http", "model": "m1"}}}
    write_stage(out / "noise", llm, {"tau/shuffles": 0.52})
    task = {"max_tokens": 1, "model": str(out / "student" / "model"), "task": {"qrels": str(out / "judge/qrels.txt")}}
    same = compared(0.0)
    write_stage(
        out / "test", task, {"test/files/nDCG@10": 0.2}, first_stage=same.first, test=same.values, teacher=same.first
    )
    other = task | {"model": "elsewhere/model"}
    write_stage(out / "another", other, {"test/files/nDCG@10": 0.9}, first_stage=FIRST, test=dict.fromkeys(FIRST, 1.0))
    return out


def test_facts_are_read_from_the_stages(recipe):
    facts = read_facts(recipe)
    assert (facts.num_lists, facts.num_steps, facts.backbone) == (400, 300, "minilm-l12")
    assert (facts.shuffles, facts.is_noise, facts.noise_directory) == (0.52, False, recipe / "noise")
    assert len(facts.judged.first) == 60 and facts.judged.difference == pytest.approx(0)
    assert facts.teacher.difference == 0 and facts.judged_by == "judgments" and not facts.ranks_pairs
    for model, said in (("m2", "judgments by m2"), ("m1", "judgments by m1, which is also the teacher")):
        (recipe / "judge" / "config.yaml").write_text(json.dumps({"teacher": {"llm": {"model": model}}}))
        assert read_facts(recipe).judged_by == said


def test_a_relative_model_is_looked_up_where_its_evaluation_was_started(recipe):
    path = recipe / "test" / "config.yaml"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model": "out/student/model"}))
    assert len(read_facts(recipe).judged.first) == 60


@pytest.mark.parametrize("place", [".", "out", "elsewhere"])
def test_relative_judgments_are_looked_up_where_their_evaluation_was_started(recipe, monkeypatch, place):
    (recipe / "judge" / "config.yaml").write_text(json.dumps({"teacher": {"llm": {"model": "m2"}}}))
    path, elsewhere = recipe / "test" / "config.yaml", recipe.parent / place
    path.write_text(json.dumps(json.loads(path.read_text()) | {"task": {"qrels": "out/judge/qrels.txt"}}))
    elsewhere.mkdir(exist_ok=True)
    monkeypatch.chdir(elsewhere)
    assert read_facts(recipe).judged_by == "judgments by m2"


@pytest.mark.parametrize(
    ("qrels", "said"),
    [
        ("gone/qrels.txt.gz", "judgments of unknown origin (gone/qrels.txt.gz is not there)"),
        ("${oc.env:QRELS}", "judgments of unknown origin (${oc.env:QRELS} is not there)"),
        ("beir/scifact/test", "judgments"),
        ("https://host/qrels.txt", "judgments"),
        ("people.txt", "judgments"),
    ],
)
def test_the_origin_of_judgments_that_are_not_there_is_unknown(recipe, qrels, said):
    path = recipe / "test" / "config.yaml"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"task": {"qrels": qrels}}))
    facts = read_facts(recipe)
    assert facts.judged_by == said and f"held-out queries, by {said}: nDCG@10" in judge(facts).line


def test_judgments_of_people_count_before_those_of_an_llm(recipe):
    (recipe / "judge" / "config.yaml").write_text(json.dumps({"teacher": {"llm": {"model": "m2"}}}))
    people = {"max_tokens": 1, "model": str(recipe / "student" / "model"), "task": {"qrels": "people.txt"}}
    for place in ("a-first", "z-last"):
        better = compared(0.1, 30)
        write_stage(recipe / place, people, {"test/files/nDCG@10": 0.3}, first_stage=better.first, test=better.values)
        facts = read_facts(recipe)
        assert facts.judged_by == "judgments" and len(facts.judged.first) == 30
        shutil.rmtree(recipe / place)


@pytest.mark.parametrize(
    "changed", [{"exit_keep": 3}, {"cascade": {"model": "LARGE", "keep": 20}}, {"passage_length": 256}]
)
@pytest.mark.parametrize("by_llm", [False, True])
def test_the_verdict_is_of_the_student_as_it_is(recipe, changed, by_llm):
    if by_llm:
        (recipe / "judge" / "config.yaml").write_text(json.dumps({"teacher": {"llm": {"model": "m2"}}}))
    task = json.loads((recipe / "test" / "config.yaml").read_text())
    better = compared(0.1)
    place = recipe / "z-last"
    write_stage(place, task | changed, {"test/files/nDCG@10": 0.3}, first_stage=better.first, test=better.values)
    assert read_facts(recipe).judged.difference == pytest.approx(0)
    shutil.rmtree(recipe / "test")
    judged = read_facts(recipe).judged
    assert judged.difference == pytest.approx(0.1) if "passage_length" in changed else judged is None


def test_a_judge_that_gives_one_grade_judges_nothing(recipe):
    (recipe / "judge" / "config.yaml").write_text(json.dumps({"teacher": {"llm": {"model": "m2"}}}))
    grades = {f"grade/{grade}": 225 if grade == 1 else 0 for grade in range(4)}
    (recipe / "judge" / "results.json").write_text(json.dumps(grades))
    facts = read_facts(recipe)
    assert (facts.judged, facts.one_grade) == (None, "m2")
    facts.agreement = compared(0.0)
    assert "; m2 gave every passage the same grade, which judges nothing, so" in judge(facts).line
    assert "judge" in [one.name for one in likeliest(facts, 9) if one.is_found]
    (recipe / "judge" / "results.json").write_text(json.dumps(grades | {"grade/2": 1}))
    assert read_facts(recipe).judged_by == "judgments by m2"


def test_the_command_makes_the_folder_that_it_writes_to(recipe, tmp_path):
    give_verdict(compose_config("verdict", f"runs={recipe}", f"output={tmp_path / 'new' / 'place'}"))
    assert (tmp_path / "new" / "place" / "verdict.md").is_file()


def test_the_command_writes_the_verdict_and_what_to_do(recipe, capsys, caplog):
    found = give_verdict(compose_config("verdict", f"runs={recipe}"))
    assert json.loads((recipe / "verdict.json").read_text()) == found
    assert (found["better"], found["by"], found["queries"], found["measure"]) == (False, "judgments", 60, "nDCG@10")
    assert [one["name"] for one in found["reasons"]] == ["weak-teacher"]
    text = (recipe / "verdict.md").read_text()
    assert text == capsys.readouterr().out and text.startswith("**Verdict**: not better than the first stage on 60 ")
    assert "1. The teacher ranks no better than the first stage either: nDCG@10 0.2000 against 0.2000" in text
    assert f"python -m distill inspect run={recipe}/noise" in text  # the only annotation there
    assert "the language of the passages is not looked at: " in caplog.text  # the model is not there


@pytest.mark.parametrize(("text", "name"), [("wo bleibt mein paket und wie kann ich es verfolgen", "german")])
def test_the_language_of_the_passages_is_looked_at(recipe, monkeypatch, text, name, backbone):
    (recipe.parent / "p.tsv").write_text(f"d1\t{text}\nd2\t{text}\n")
    monkeypatch.setattr("distill.models.parts.load_tokenizer", lambda _: AutoTokenizer.from_pretrained(backbone))
    facts = read_facts(recipe)
    add_language(facts)
    assert (facts.language == name and facts.pieces > 1.6) or facts.unknown_tokens > 0.05
    assert judge(facts).reasons[0].name == "language"


def test_the_command_for_a_teacher_of_several_runs_parses_to_them():
    teacher = {"path": ["a.run", "b c.run"], "fusion": {"method": "z-score", "weights": [1.0, 0.5], "k": None}}
    words = _train(Facts("out", student={"teacher": teacher, "data": {"passages": "p.tsv"}}), "-longer")
    keep = [one for one in words if one.startswith("teacher.") and not one.endswith("=...")]
    cfg = compose_config("train", *keep)
    assert list(cfg.teacher.path) == ["a.run", "b c.run"]
    assert (cfg.teacher.fusion.method, list(cfg.teacher.fusion.weights)) == ("z-score", [1.0, 0.5])


@pytest.mark.parametrize("command", [["verdict", "runs=nothere"], ["report", "runs=nothere", "output=new"]])
def test_a_refused_command_leaves_nothing(tmp_path, command):
    done = run("-m", "distill", *command, cwd=tmp_path)
    assert done.returncode == 2 and "error: " in done.stderr, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_a_training_is_refused(tmp_path):
    with pytest.raises(InputError, match="no finished training there or below"):
        give_verdict(compose_config("verdict", f"runs={tmp_path}"))
