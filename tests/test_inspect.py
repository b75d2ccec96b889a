"""`distill inspect`: what two rankings have in common and what moved, worked by hand, and the page that shows it."""

import html
import json
import re

import pytest
import yaml
from omegaconf import OmegaConf
from scipy.stats import ttest_rel

from distill.commands.inspect import check_inspect, inspect
from distill.config.measures import parse_measures
from distill.errors import InputError
from distill.evaluation.averages import measure_rows
from distill.evaluation.tasks import read_task
from distill.report.change_tables import Known, first_places, summarise, tabulate
from distill.report.changes import choose, compare, tau
from distill.report.reading import open_reading
from distill.sources.run_files import write_run
from tests.helpers.backbones import make_backbone
from tests.helpers.commands import run
from tests.helpers.configuration import compose_config
from tests.helpers.pages import Page
from tests.helpers.rankings import ranked

# q1: the relevant b rises from 2 to 1. q2: the relevant d falls from 1 to 3. q3: z is in no list. q4: no judgments
BEFORE = {
    "q1": ranked({"a": 3, "b": 2, "c": 1}),
    "q2": ranked({"d": 9, "e": 8, "f": 7}),
    "q3": ranked({"g": 2, "h": 1}),
    "q4": ranked({"a": 2, "c": 1}),
}
AFTER = {
    "q1": ranked({"b": 0.3, "a": 0.2, "c": 0.1}),
    "q2": ranked({"f": 3, "e": 2, "d": 1}),
    "q3": ranked({"h": 5, "g": 4}),
    "q4": ranked({"a": 2, "c": 1}),
}
QRELS = {"q1": {"b": 1, "a": 0}, "q2": {"d": 2}, "q3": {"z": 1, "g": 0}}
QUERIES = {"q1": "bees & <b>light</b>", "q2": "how high do bees fly", "q3": "bees", "q4": "honey"}
PASSAGES = {
    "a": "<script>alert(1)</script> Bees\u202e fly.",
    "b": "bees light " + "b" * 30,
    "c": "c",
    "d": "They fly high.",
    "e": "e",
    "g": "g",
    "h": "h",
    "z": "bees",
}  # without f
[RR] = parse_measures(["RR@10"])


def write_files(directory) -> dict:
    """Write the two runs, the texts and the judgments; return the keys that name them."""
    write_run(BEFORE, directory / "before.run", "x")
    write_run(AFTER, directory / "after.run", "x")
    for name, texts in (("queries", QUERIES), ("passages", PASSAGES)):
        (directory / f"{name}.tsv").write_text("".join(f"{text_id}\t{text}\n" for text_id, text in texts.items()))
    lines = [f"{q} 0 {d} {grade}\n" for q, grades in QRELS.items() for d, grade in grades.items()]
    (directory / "qrels.txt").write_text("".join(lines))
    names = {key: f"{key}.tsv" for key in ("queries", "passages")} | {"qrels": "qrels.txt"}
    names |= {"run": "after.run", "baseline": "before.run"}
    return {key: str(directory / name) for key, name in names.items()}


def inspected(directory, keys: dict, *overrides: str) -> str:
    """Return the page."""
    out = directory / "out"
    out.mkdir(exist_ok=True)
    cfg = compose_config("inspect", *(f"{key}='{value}'" for key, value in keys.items()), *overrides)
    check_inspect(cfg)
    inspect(cfg, out)
    return (out / "index.html").read_text()


def cards(page: str) -> dict[str, list[str]]:
    """The ids of the queries below each heading, in order."""
    parts = re.split(r"<h2>(.*?)</h2>", page)[1:]
    named = dict(zip(parts[::2], parts[1::2], strict=True))
    found = {name: re.findall(r'<h3>.*?class="faint">(q\d)<', text, re.S) for name, text in named.items()}
    return {name.split(":")[0]: ids for name, ids in found.items()}


# What changes


def test_the_summary_is_that_worked_by_hand():
    lines = dict(summarise(compare(BEFORE, AFTER, QRELS, RR), "RR@10", Known()))
    assert lines["queries"] == "4, 3 of them judged"
    assert lines["RR@10"] == "0.5000 → 0.4444 (-0.0556)"  # 1/2, 1, 0 and 1, 1/3, 0
    assert lines["helped"] == "1 (33%), by +0.5000 on average"
    assert lines["harmed"] == "1 (33%), by -0.6667 on average"
    assert lines["unchanged"] == "1 (33%)" and lines["no relevant passage"].startswith("in 1 (33%) ")
    assert lines["another first passage"] == "3 (75%)"
    assert lines["Kendall's tau"].startswith("-0.17 ")  # 1/3, -1, -1, 1
    assert lines["paired t-test"] == f"p = {ttest_rel([1, 1 / 3, 0], [0.5, 1, 0]).pvalue:.2g}"
    assert "long passages" not in lines and "overlap@10" not in lines


def test_the_place_of_the_first_relevant_passage_before_and_after():
    changes = compare(BEFORE, AFTER, QRELS, RR)
    assert first_places(changes) == [("1", 1, 1), ("2", 1, 0), ("3", 0, 1), ("none in the list", 1, 1)]
    assert first_places(compare(BEFORE, AFTER, {}, RR)) == [("none in the list", 0, 0)]


def test_places_are_those_of_trec_eval():
    tied = {"q": ranked({"a": 1, "b": 1, "c": 0})}
    [change] = compare(tied, tied, {"q": {"a": 1}}, RR)
    assert change.before.doc_ids == ["b", "a", "c"]  # equal scores: by id, descending
    assert change.values == (0.5, 0.5) and change.first_place(change.after) == 2


def test_a_measure_with_a_grade_says_what_is_relevant():
    [measure] = parse_measures(["RR(rel=2)@10"])
    changes = {one.query_id: one for one in compare(BEFORE, AFTER, QRELS, measure)}
    assert changes["q1"].is_hopeless and changes["q1"].values == (0, 0) and changes["q2"].relevant == {"d"}


def test_kendalls_tau_counts_the_passages_of_both_lists():
    assert tau(ranked({"a": 3, "x": 2, "b": 1}), ranked({"y": 3, "b": 2, "a": 1})) == -1
    assert tau(BEFORE["q1"], AFTER["q1"]) == pytest.approx(1 / 3)
    assert tau(ranked({"a": 2, "b": 1}), ranked({"b": 2, "c": 1})) is None


def test_the_best_relevant_passage_that_is_missed():
    run = {"q": ranked({"a": 4, "b": 3, "c": 2, "d": 1})}
    [change] = compare(run, run, {"q": {"a": 2, "b": 1, "d": 1, "z": 1}}, RR)
    assert [change.missed(depth) for depth in (1, 2, 4)] == ["b", "d", "z"]
    [graded] = compare(run, run, {"q": {"b": 1, "z": 3}}, RR)
    assert graded.missed(1) == "z"  # by grade first


def test_sections_hold_and_order_what_they_say():
    run = {f"q{n}": ranked({f"a{n}": 3, f"b{n}": 2, f"c{n}": 1}) for n in range(5)}
    turned = {
        q: ranked({d: -rank for rank, d in enumerate([*one.doc_ids[1:], one.doc_ids[0]])}) for q, one in run.items()
    }
    qrels = {"q0": {"a0": 1}, "q1": {"b1": 1}, "q2": {"c2": 1}, "q3": {"z": 1}}
    changes = compare(run, turned, qrels, RR)  # RR: 1 → 1/3, 1/2 → 1, 1/3 → 1/2, 0 → 0
    chosen = {name: choose(changes, name, 2) for name in ("worst", "harmed", "helped", "missing", "moved")}
    assert {name: ([one.query_id for one in listed], total) for name, (listed, total) in chosen.items()} == {
        "worst": (["q0", "q2"], 3),
        "harmed": (["q0"], 1),
        "helped": (["q1", "q2"], 2),
        "missing": (["q3"], 1),
        "moved": (["q0", "q1"], 5),
    }


def test_the_table_says_how_queries_fared_by_what_is_known_of_them():
    known = Known(QUERIES, PASSAGES, {"b": 8, "d": 3, "z": 1}, 4)
    table = tabulate(compare(BEFORE, AFTER, QRELS, RR), "RR@10", known)
    rows, heading = {}, ""
    for line in table.lines:
        heading = line.heading or heading
        rows[heading, line.name] = [cell.text for cell in line.cells]
    helped = ["1", "0.500", "1.000", "+0.500", "1 (100%)", "0 (0%)"]
    harmed = ["1", "1.000", "0.333", "-0.667", "0 (0%)", "1 (100%)"]
    nothing = ["1", "0.000", "0.000", "+0.000", "0 (0%)", "0 (0%)"]
    assert rows == {
        ("First relevant passage before", "1"): harmed,
        ("First relevant passage before", "2"): helped,
        ("First relevant passage before", "none in the list"): nothing,
        ("Words of the query", "1"): nothing,
        ("Words of the query", "2–4"): helped,  # bees, b, light, b
        ("Words of the query", "5 or more"): harmed,
        ("Tokens of that passage", "3–4"): harmed,
        ("Tokens of that passage", "5 or more"): helped,
        ("Words of the query in that passage", "up to 50 %"): harmed,  # high, fly of how, high, do, bees, fly
        ("Words of the query in that passage", "up to 75 %"): helped,  # bees, light of bees, b, light
    }
    assert tabulate(compare(BEFORE, AFTER, {}, RR), "RR@10", known) is None


# The page


def test_the_page_escapes_texts_and_refers_to_nothing_outside(tmp_path):
    text = inspected(tmp_path, write_files(tmp_path), "characters=20", "depth=2")
    page = Page()
    page.feed(text)
    assert page.open == [] and not {"script", "link", "img", "a"} & page.tags and page.references == []
    assert "bees &amp; &lt;b&gt;light&lt;/b&gt;" in text and "&lt;script&gt;alert(1)&lt;/sc…" in text
    assert "://" not in text and "@import" not in text and "prefers-color-scheme: dark" in text
    assert f"bees light {'b' * 9}…" in text and "b" * 10 not in text


def test_the_page_shows_where_passages_went(tmp_path):
    text = inspected(tmp_path, write_files(tmp_path), "depth=2", "measure=RR@10")
    assert cards(text)["Ranked worst"] == ["q2", "q1"] and cards(text)["Harmed most"] == ["q2"]
    assert cards(text)["Helped most"] == ["q1"] and cards(text)["No relevant passage in the list"] == ["q3"]
    seen = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", "", text)))
    assert "RR@10 1.0000 → 0.3333 (-0.6667) · first relevant passage 1 → 3 · 1 of 1 relevant in the list" in seen
    assert "1 · to 3 ▼2 · grade 2, relevant · score 9 · d They fly high." in seen
    assert "1 · from 3 ▲2 · not judged · score 3 · f" in seen and "2 · same place · not judged · score 2 · e" in seen
    assert "not among the first: 3 · before: 1 of 3; after: 3 of 3 · grade 2, relevant · score 1 · d" in seen
    assert "before: not in the list; after: not in the list · grade 1, relevant · z bees" in seen
    assert "passages.tsv lacks 1 of " in seen and "1 of 4 queries have no judgments: not measured." in seen


def test_characters_that_a_page_does_not_show_are_written_out(tmp_path):
    keys = write_files(tmp_path)
    (tmp_path / "queries.tsv").write_text("q1\tbees\x07\ufeff\n")
    assert "bees\\x07\\ufeff" in inspected(tmp_path, keys)


def test_without_judgments_the_page_shows_what_moved_most(tmp_path, capsys):
    keys = write_files(tmp_path)
    del keys["qrels"]
    text = inspected(tmp_path, keys)
    assert cards(text)["Moved most"] == ["q2", "q3", "q1", "q4"] and "relevant" not in text.split("</style>")[1]
    assert capsys.readouterr().out.splitlines() == [
        "queries                4",
        "another first passage  3 (75%)",
        "Kendall's tau          -0.17 on average between the two orders",
    ]


def test_without_texts_the_page_shows_ids(tmp_path):
    keys = write_files(tmp_path)
    text = inspected(tmp_path, {key: keys[key] for key in ("run", "baseline")})
    assert re.findall(r"<h3><bdi>(q\d)</bdi></h3>", text) == ["q2", "q3", "q1", "q4"]


def test_queries_of_one_run_only_are_left_out_and_counted(tmp_path):
    keys = write_files(tmp_path)
    write_run({q: BEFORE[q] for q in ("q1", "q3")} | {"q9": BEFORE["q1"]}, tmp_path / "before.run", "x")
    text = inspected(tmp_path, keys)
    assert "2 of 4 queries of " in text and "1 of 3 queries of " in text and cards(text)["Harmed most"] == []


# Directories


def evaluation_in(directory, keys: dict, **changed):
    """Write the directory of an evaluation of files, as evaluate.py leaves it."""
    task = {f"task.{key}": keys[key] for key in ("passages", "queries", "qrels")} | {"task.run": keys["baseline"]}
    cfg = compose_config("evaluate", "task=files", *(f"{key}='{value}'" for key, value in task.items()))
    plain = OmegaConf.to_container(cfg, resolve=False)
    plain["task"] |= changed
    directory.mkdir(parents=True)
    (directory / "config.yaml").write_text(yaml.safe_dump(plain))
    write_run(AFTER, directory / "run.txt", "student")
    return plain


def test_a_directory_names_its_first_stage_judgments_and_texts(tmp_path):
    keys = write_files(tmp_path)
    evaluation_in(tmp_path / "e", keys)
    text = inspected(tmp_path, {"run": tmp_path / "e"}, "measure=RR@10")
    assert cards(text)["Harmed most"] == ["q2"] and "They fly high." in text
    assert f"first stage ({keys['baseline']})" in text
    same = inspected(tmp_path, {"run": tmp_path / "e", "baseline": tmp_path / "e"})
    assert cards(same)["Harmed most"] == cards(same)["Helped most"] == []
    file = inspected(tmp_path, {"run": tmp_path / "e" / "run.txt"}, "measure=RR@10")
    assert cards(file) == cards(text)


def test_the_first_stage_of_a_directory_is_cut_as_it_was_when_it_was_reranked(tmp_path):
    evaluation_in(tmp_path / "e", write_files(tmp_path), depth=2, model="m")
    write_run({q: one.cut(2) for q, one in AFTER.items()}, tmp_path / "e" / "run.txt", "student")
    text = inspected(tmp_path, {"run": tmp_path / "e"}, "depth=5")
    assert "<b>1</b> · only here" in text and "<b>2</b>" in text and "<b>3</b>" not in text


def test_what_the_command_line_gives_comes_before_what_the_directory_says(tmp_path):
    keys = write_files(tmp_path)
    evaluation_in(tmp_path / "e", keys)
    (tmp_path / "other.csv").write_text("key,words\nd,Other words\n")
    (tmp_path / "qrels.txt").rename(tmp_path / "moved.txt")
    given = {"run": tmp_path / "e", "qrels": tmp_path / "moved.txt", "passages": tmp_path / "other.csv"}
    text = inspected(tmp_path, given, "id_field=key", "text_fields=[words]")
    assert "Other words" in text and "They fly high." not in text


def test_judgments_of_articles_grade_their_passages_and_measure_articles(tmp_path, capsys):
    before = {"q1": ranked({"x#0": 5, "y#1": 4, "x#1": 3, "w#0": 2}), "q2": ranked({"y#0": 2, "x#0": 1})}
    after = {"q1": ranked({"w#0": 9, "x#1": 8, "x#0": 7, "y#1": 6}), "q2": ranked({"x#0": 2, "y#0": 1})}
    keys = write_files(tmp_path)
    write_run(before, tmp_path / "before.run", "x")
    (tmp_path / "passages.tsv").write_text("".join(f"{one}\tOf {one}\n" for one in "x#0 x#1 y#0 y#1 w#0 z#0".split()))
    (tmp_path / "qrels.txt").write_text("q1 0 y 1\nq1 0 w 0\nq2 0 y 2\nq2 0 z 1\n")
    evaluation_in(tmp_path / "e", keys, max_passage=True)
    write_run(after, tmp_path / "e" / "run.txt", "student")
    # Articles before: x y w, and y x. After: w x y, since x counts once, and x y
    cfg = OmegaConf.load(tmp_path / "e" / "config.yaml")
    cfg.task.measures = ["RR@10"]
    task = read_task(cfg.task, texts=False)
    results, _ = measure_rows(task, {"first_stage": task.run, "test": after})
    assert results == {"first_stage/files/RR@10": (1 / 2 + 1) / 2, "test/files/RR@10": (1 / 3 + 1 / 2) / 2}
    for baseline in ({}, {"baseline": keys["baseline"]}):
        text = inspected(tmp_path, {"run": tmp_path / "e"} | baseline, "measure=RR@10", "depth=2")
        assert "RR@10                  0.7500 → 0.4167 (-0.3333)" in capsys.readouterr().out
        assert cards(text)["Harmed most"] == ["q2", "q1"] and "passages have their articles" in text
        seen = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", "", text)))
        assert "first relevant passage 2 → 4 · 1 of 1 relevant in the list" in seen  # y#1
        assert "2 · to 4 ▼2 · grade 1, relevant · score 4 · y#1 Of y#1" in seen
        assert "before: not in the list; after: not in the list · grade 1, relevant · z#0 Of z#0" in seen


def test_a_baseline_of_articles_is_not_compared_with_passages_that_are_measured_as_articles(tmp_path):
    keys = write_files(tmp_path)
    write_run({"q1": ranked({"a#0": 1})}, tmp_path / "passages.run", "x")
    evaluation_in(tmp_path / "e", keys | {"baseline": str(tmp_path / "passages.run")}, max_passage=True)
    write_run({"q1": ranked({"a#0": 1})}, tmp_path / "e" / "run.txt", "student")
    with pytest.raises(InputError, match="^baseline: query q1: passage a is no part of an article: .*: give a run of"):
        inspected(tmp_path, {"run": tmp_path / "e", "baseline": keys["baseline"]})


def test_the_directory_of_an_older_version_lacks_keys(tmp_path):
    plain = evaluation_in(tmp_path / "e", write_files(tmp_path))
    for key in ("bm25", "interpolate", "fused", "ideal", "windows", "window_stride"):
        del plain["task"][key]
    (tmp_path / "e" / "config.yaml").write_text(yaml.safe_dump(plain))
    assert cards(inspected(tmp_path, {"run": tmp_path / "e"}, "measure=RR@10"))["Helped most"] == ["q1"]


def test_a_suite_has_a_directory_for_each_task(tmp_path):
    keys = write_files(tmp_path)
    part = {"run": keys["baseline"], "qrels": keys["qrels"]}
    evaluation_in(tmp_path / "e", keys, run=None, qrels=None, tasks={"one": part, "two": part})
    (tmp_path / "e" / "tasks" / "two").mkdir(parents=True)
    (tmp_path / "e" / "run.txt").rename(tmp_path / "e" / "tasks" / "two" / "run.txt")
    text = inspected(tmp_path, {"run": tmp_path / "e" / "tasks" / "two"}, "measure=RR@10")
    assert cards(text)["Harmed most"] == ["q2"]
    with pytest.raises(InputError, match="has no run.txt: it has several tasks: give one, as in run=.*/tasks/two$"):
        inspected(tmp_path, {"run": tmp_path / "e"})


def test_the_directory_of_an_annotation_shows_what_the_teacher_moved(tmp_path):
    keys = write_files(tmp_path)
    names = {key: keys[key] for key in ("passages", "queries")} | {"run": keys["baseline"]}
    cfg = compose_config("annotate", *(f"{key}='{value}'" for key, value in names.items()), "teacher.llm.model=m")
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "config.yaml").write_text(yaml.safe_dump(OmegaConf.to_container(cfg, resolve=False)))
    write_run(AFTER, tmp_path / "t" / "teacher.run", "teacher")
    text = inspected(tmp_path, {"run": tmp_path / "t"})
    assert cards(text)["Moved most"] == ["q2", "q3", "q1", "q4"] and "They fly high." in text
    assert sorted(cards(text)["A sample"]) == ["q1", "q2", "q3", "q4"]


def test_passages_longer_than_the_model_reads_are_counted_and_marked(tmp_path):
    keys = write_files(tmp_path)
    model = make_backbone(tmp_path / "model", words=["bees", "fly"])
    assert open_reading(str(model)) is None  # no model of this project
    (model / "distill.json").write_text(json.dumps({"query_length": 4, "passage_length": 3}))
    (tmp_path / "adapters").mkdir()
    for name in ("distill.json", "tokenizer.json"):  # the backbone has the rest
        (tmp_path / "adapters" / name).write_bytes((model / name).read_bytes())
    assert open_reading(str(tmp_path / "adapters")) is None
    reading = open_reading(str(model))
    assert (reading.length, reading.count({"x": "bees bees fly . ?", "y": "bees"})) == (3, {"x": 5, "y": 1})
    assert open_reading(str(model), windows=3).length == 5  # two strides of half a window, rounded down
    seen = re.sub(r"<[^>]+>", "", inspected(tmp_path, keys | {"model": model}, "measure=RR@10"))
    assert "1 (33%) of the relevant ones are longer than the 3 tokens that are read" in seen  # d, with its full stop
    assert re.search(r"score 9 · d · 4 tokens, 3 read\s+They fly high", seen)


# Bad input


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"run": "none.run"}, "run=none.run: no such file: check the path"),
        ({"run": "."}, r"run=\.: has no config.yaml: give the output directory of train.py, evaluate.py or annotate"),
        ({"baseline": None}, "baseline is missing: .*after.run does not say which first stage it ranks"),
        ({"measure": "nDGC@10"}, "measure nDGC@10: unknown to ir_measures"),
        ({"sections": "[wurst]"}, r"sections=\['wurst'\]: wurst is unknown: choose one of worst, harmed"),
        ({"sections": "[helped]", "qrels": None}, r"sections=\[helped\]: helped needs judgments: give qrels, or "),
        ({"depth": 0}, "depth=0: must be at least 1"),
        ({"model": "nowhere"}, "model=nowhere: no such directory"),
        ({"baseline": "other.run"}, "after.run: shares no query with .*other.run: compare rankings of the same"),
        ({"qrels": "other.txt"}, "other.txt: has none of the 4 queries of .*after.run: use the qrels that belong"),
        ({"queries": "other.tsv"}, "other.tsv: has none of the 4 queries of .*after.run: use the queries that belong"),
        ({"passages": "other.tsv"}, "other.tsv: has none of the 9 passages to show, such as a: give the collection"),
        ({"run": "bad.run"}, "bad.run:1: score 'nan' is not finite"),
    ],
)
def test_bad_input_is_refused_in_one_line(tmp_path, monkeypatch, changed, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.run").write_text("r Q0 a 1 2 x\n")
    (tmp_path / "other.txt").write_text("r 0 a 1\n")
    (tmp_path / "other.tsv").write_text("r\tbees\n")
    (tmp_path / "bad.run").write_text("q Q0 a 1 nan x\n")
    keys = {key: value for key, value in (write_files(tmp_path) | changed).items() if value is not None}
    lists = [f"{key}={value}" for key, value in keys.items() if str(value).startswith("[")]
    with pytest.raises(InputError, match=message) as refused:
        inspected(tmp_path, {key: value for key, value in keys.items() if f"{key}={value}" not in lists}, *lists)
    assert "\n" not in str(refused.value)


def test_the_command_prints_the_summary_and_ends_with_status_2_on_bad_input(tmp_path):
    keys = [f"{key}={value}" for key, value in write_files(tmp_path).items()]
    done = run("-m", "distill", "inspect", *keys, "output=page", "measure=RR@10", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "RR@10                  0.5000 → 0.4444 (-0.0556)" in done.stdout and "open page/index.html" in done.stderr
    assert "python -m distill inspect queries=" in (tmp_path / "page" / "index.html").read_text()
    done = run("-m", "distill", "inspect", "run=none.run", cwd=tmp_path)
    assert done.returncode == 2 and "error: run=none.run: no such file" in done.stderr
