"""Every teacher of conf/teacher against a small file of its true format, put into the cache by hand, and a bad twin."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from distill.config.checks import check_train
from distill.config.local_files import with_local_files
from distill.data.teacher_lists import needs_first_stage
from distill.errors import InputError
from distill.sources.download import place_of
from distill.sources.locate import is_remote
from distill.sources.permutations import parse_permutation
from tests.helpers.configuration import as_tuples, compose_config, decoded_lists
from tests.helpers.paths import ROOT

TEXTS = {
    "7187158": "a bee finds its home",
    "7187157": "trains follow rails",
    "7187163": "ants walk",
    "1": "iron",
    "2": "sun",
}
QUERIES = {"1185869": "how does a bee find home", "1185868": "what do trains follow"}
# First-stage order, best first; the teacher turns it around
RANKING = [("1185869", ["7187158", "7187157", "7187163"]), ("1185868", ["1", "7187157", "2"])]
QRELS = "1185869 0 7187163 1\n1185868 0 7187158 1\n"  # the second relevant passage is missing in the ranking
REVERSED = [("1185869", ["7187163", "7187157", "7187158"], [1, 2, 3]), ("1185868", ["2", "7187157", "1"], [1, 2, 3])]
LABELLED = [
    ("1185869", ["7187158", "7187157", "7187163"], [0, 0, 1]),
    ("1185868", ["1", "7187157", "2", "7187158"], [0, 0, 0, 1]),
]


def run_text(ranking, separator: str = "\t") -> str:
    return "".join(
        separator.join([query_id, "Q0", doc_id, str(rank), str(100.5 - rank), "system"]) + "\n"
        for query_id, doc_ids in ranking
        for rank, doc_id in enumerate(doc_ids, start=1)
    )


def write_parquet_run(path: Path, ranking) -> None:
    rows = [(q, d, rank) for q, doc_ids in ranking for rank, d in enumerate(doc_ids, start=1)]
    columns = dict(zip(("query_id", "doc_id", "rank"), map(list, zip(*rows, strict=True)), strict=True))
    pyarrow.parquet.write_table(pa.table(columns), path)


def backwards(ranking):
    return [(query_id, doc_ids[::-1]) for query_id, doc_ids in ranking]


def retrieved(query: str, doc_ids: list[str]) -> dict:
    passages = [{"docid": doc_id, "text": TEXTS[doc_id], "rank": 1 + n} for n, doc_id in enumerate(doc_ids)]
    return {"query_id": "x", "query": query, "positive_passages": [], "retrieved_passages": passages}


INLINE = [retrieved(QUERIES[query_id], doc_ids) for query_id, doc_ids in RANKING]
ANSWERS = ["[3] > [2] > [1]", "[2] > [2] > [9] > [1]"]  # the second repeats, invents and forgets
TRIPLES = "12.5\t-3.25\t1185869\t7187158\t7187157\n1.0\t2.0\t1185868\t1\t2\n"


@pytest.fixture
def downloads(tmp_path, monkeypatch) -> Path:
    """Where a test puts the files that `read` then takes for downloaded."""
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "downloads").mkdir(parents=True)
    return tmp_path / "cache" / "downloads"


def read(tmp_path, backbone, teacher: str, *overrides) -> list[tuple]:
    """Read a teacher as configured, but for its checksums, on the five passages above."""
    (tmp_path / "passages.tsv").write_text("".join(f"{key}\t{text}\n" for key, text in TEXTS.items()))
    (tmp_path / "queries.tsv").write_text("".join(f"{key}\t{text}\n" for key, text in QUERIES.items()))
    (tmp_path / "qrels.txt").write_text(QRELS)
    texts = [f"data.passages={tmp_path / 'passages.tsv'}", f"data.queries={tmp_path / 'queries.tsv'}"]
    data = ["data=jsonl"] if teacher in ("rankgpt35-bm25", "twolar") else ["data=files", *texts]
    common = ["backbone=hf", f"backbone.name={backbone}", f"teacher={teacher}", "train.patience=null"]
    cfg = compose_config("train", *common, *data, *overrides)
    if cfg.teacher.qrels:
        cfg.teacher.qrels = str(tmp_path / "qrels.txt")
    for key in ("path", "first_stage"):
        if cfg.teacher[key] and "#file=" not in cfg.teacher[key]:
            cfg.teacher[key] = cfg.teacher[key].partition("#")[0]
        if is_remote(cfg.teacher[key]):
            place = place_of(cfg.teacher[key])
            given = place.parent.parent / place.name
            if given.is_file():
                place.parent.mkdir(exist_ok=True)
                given.rename(place)
    check_train(cfg)
    lists = decoded_lists(with_local_files(cfg, () if needs_first_stage(cfg) else ("teacher.first_stage",)))
    return as_tuples(lists)


COLBERT = "__colbert__msmarco-passage-train-judged.parquet"
BM25 = "__bm25__msmarco-passage-train-judged.run"


@pytest.mark.parametrize("teacher", ["msmarco-labels-colbertv2", "msmarco-labels-bm25"])
def test_labels_with_a_first_stage_of_hard_negatives(tmp_path, backbone, downloads, teacher):
    write_parquet_run(downloads / COLBERT, RANKING)
    (downloads / BM25).write_text(run_text(RANKING))
    assert read(tmp_path, backbone, teacher, "loss=lce") == LABELLED


@pytest.mark.parametrize("first_stage", ["colbert", "bm25"])
@pytest.mark.parametrize("separator", ["\t", " "])
def test_rankzephyr(tmp_path, backbone, downloads, first_stage, separator):
    teacher = "rankzephyr-" + first_stage.replace("colbert", "colbertv2")
    name = f"__rankzephyr-{first_stage}-10000-sampled-100__msmarco-passage-train-judged.run"
    (downloads / name).write_text(run_text(backwards(RANKING), separator))
    assert read(tmp_path, backbone, teacher) == REVERSED  # without the first stage's file: no depth, no need of it
    write_parquet_run(downloads / COLBERT, RANKING)
    (downloads / BM25).write_text(run_text(RANKING))
    cut = [("1185869", ["7187157", "7187158"], [1, 2]), ("1185868", ["7187157", "1"], [1, 2])]
    assert read(tmp_path, backbone, teacher, "data.depth=2") == cut
    assert read(tmp_path, backbone, teacher, "loss=lce") == LABELLED


@pytest.mark.parametrize("ranker", ["set-encoder", "monoelectra"])
def test_rankings_of_all_queries(tmp_path, backbone, downloads, ranker):
    write_parquet_run(
        downloads / f"__{ranker}-colbert-all-100__msmarco-passage-train-judged.parquet", backwards(RANKING)
    )
    assert read(tmp_path, backbone, f"{ranker}-colbertv2", "loss=adrmse") == REVERSED


def test_rankgpt_permutes_lists_with_their_texts_inline(tmp_path, backbone, downloads, caplog):
    (downloads / "marco-train-100k.jsonl").write_text("".join(json.dumps(row) + "\n" for row in INLINE))
    (downloads / "marco-train-100k-gpt3.5.json").write_text(json.dumps(ANSWERS))
    expected = [("1", ["1.3", "1.2", "1.1"], [1, 2, 3]), ("2", ["2.2", "2.1", "2.3"], [1, 2, 3])]
    assert read(tmp_path, backbone, "rankgpt35-bm25") == expected
    assert "1 of 2 answers were not whole permutations: repaired; 0 that name no passage left out" in caplog.text
    cut = [("1", ["1.2", "1.1"], [1, 2]), ("2", ["2.2", "2.1"], [1, 2])]  # BM25's top 2 in GPT-3.5's order
    assert read(tmp_path, backbone, "rankgpt35-bm25", "data.depth=2") == cut


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_twolar_has_the_teachers_order(tmp_path, backbone, downloads, suffix):
    if suffix == "parquet":
        pyarrow.parquet.write_table(pa.Table.from_pylist(INLINE), downloads / "twolar-train.parquet")
        override = []
    else:
        (tmp_path / "twolar.jsonl").write_text("".join(json.dumps(row) + "\n" for row in INLINE))
        override = [f"teacher.path={tmp_path / 'twolar.jsonl'}"]
    expected = [("1", ["1.1", "1.2", "1.3"], [1, 2, 3]), ("2", ["2.1", "2.2", "2.3"], [1, 2, 3])]
    assert read(tmp_path, backbone, "twolar", *override) == expected


@pytest.mark.parametrize(
    "loss, targets",
    [("marginmse", ([12.5, -3.25], [1, 2])), ("ranknet", ([1, 2], [2, 1])), ("hinge", ([1, 0], [1, 0]))],
)
def test_hofstaetters_triples_serve_any_loss(tmp_path, backbone, downloads, loss, targets):
    (downloads / "bert_cat_ensemble_msmarcopassage_train_scores_ids.tsv").write_text(TRIPLES)
    lists = read(tmp_path, backbone, "hofstaetter-ensemble", f"loss={loss}")
    assert lists == [("1185869", ["7187158", "7187157"], targets[0]), ("1185868", ["1", "2"], targets[1])]
    one = read(tmp_path, backbone, "hofstaetter-ensemble", f"loss={loss}", "data.num_queries=1")
    assert len(one) == 1 and one[0] in lists


RUN = run_text(backwards(RANKING))
BAD_RUNS = [
    (RUN.replace("\tQ0", "", 1), r"\.run:1: 5 columns instead of six"),
    (RUN.replace("98.5", "high", 1), r"\.run:2: score 'high' is not a number"),
    (RUN + RUN.splitlines()[-1] + "\n", r"\.run:7: passage 1 appears twice for query 1185868"),
    (RUN.replace("7187163", "99"), r"\.run:1: passage 99 is not in .*passages.tsv"),
]
BAD_PARQUET = [
    (pa.table({"query_id": ["1185869"], "rank": [1]}), r"\.parquet: lacks column \['doc_id'\]"),
    (pa.table({"query_id": ["1185869"] * 2, "doc_id": ["1"] * 2, "rank": [1, 2]}), r"row 2: passage 1 appears twice"),
    (
        pa.table({"query_id": ["1185869"] * 2, "doc_id": ["1", "2"], "rank": [1, None]}),
        r"row 2: rank None is not a number",
    ),
]
BAD_TRIPLES = [
    (TRIPLES + "1.0\t2.0\t1185868\t1\n", r"\.tsv:3: 4 columns instead of five"),
    (TRIPLES.replace("-3.25", "low"), r"\.tsv:1: score 'low' is not a number"),
    (TRIPLES.replace("7187157", "7187158"), r"\.tsv:1: passage 7187158 appears on both sides"),
    (TRIPLES.replace("7187157", "99"), r"\.tsv:1: passage 99 is not in .*passages.tsv"),
    (TRIPLES.replace("118586", "9"), r"\.tsv: no training list is left"),
    ("", r"\.tsv: holds no triple"),
]
BAD_ANSWERS = [
    (json.dumps(ANSWERS[:1]), r"gpt3.5.json: 1 answers for the 2 lists of .*100k.jsonl"),
    (json.dumps([ANSWERS[0], None]), r"gpt3.5.json: answer 2 is not text"),
    (json.dumps({"1": ANSWERS}), r"gpt3.5.json: is not a JSON array"),
    ('["[1] > [2]"', r"gpt3.5.json: is not JSON \("),
    (json.dumps(["Sorry, I cannot", ""]), r"gpt3.5.json: no answer names a passage"),
    (json.dumps(["[99]", "<think>[2] > [1]"]), r"gpt3.5.json: no answer names a passage"),
]
BAD_INLINE = [
    ([INLINE[0], {"query": "a bee"}], r"twolar.jsonl:2: is not a training line: its fields are query"),
    ([INLINE[0], {"query": "a bee", "retrieved_passages": []}], r"twolar.jsonl:2: `retrieved_passages` is not a list"),
    ([{"query": "a bee", "retrieved_passages": [{"docid": 1}]}], r"twolar.jsonl:1: passage 1 .* lacks a `text`"),
]


@pytest.mark.parametrize("text, message", BAD_RUNS)
def test_a_bad_run_is_refused_with_its_line(tmp_path, backbone, downloads, text, message):
    (downloads / "__rankzephyr-colbert-10000-sampled-100__msmarco-passage-train-judged.run").write_text(text)
    with pytest.raises(InputError, match=message):
        read(tmp_path, backbone, "rankzephyr-colbertv2")


@pytest.mark.parametrize("table, message", BAD_PARQUET)
def test_a_bad_parquet_run_is_refused_with_its_row(tmp_path, backbone, downloads, table, message):
    pyarrow.parquet.write_table(
        table, downloads / "__set-encoder-colbert-all-100__msmarco-passage-train-judged.parquet"
    )
    with pytest.raises(InputError, match=message):
        read(tmp_path, backbone, "set-encoder-colbertv2")


@pytest.mark.parametrize("text, message", BAD_TRIPLES)
def test_a_bad_triple_is_refused_with_its_line(tmp_path, backbone, downloads, text, message):
    (downloads / "bert_cat_ensemble_msmarcopassage_train_scores_ids.tsv").write_text(text)
    with pytest.raises(InputError, match=message):
        read(tmp_path, backbone, "hofstaetter-ensemble", "loss=marginmse")


@pytest.mark.parametrize("text, message", BAD_ANSWERS)
def test_bad_permutations_are_refused(tmp_path, backbone, downloads, text, message):
    (downloads / "marco-train-100k.jsonl").write_text("".join(json.dumps(row) + "\n" for row in INLINE))
    (downloads / "marco-train-100k-gpt3.5.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read(tmp_path, backbone, "rankgpt35-bm25")


@pytest.mark.parametrize("rows, message", BAD_INLINE)
def test_bad_ranked_lines_are_refused(tmp_path, backbone, downloads, rows, message):
    (tmp_path / "twolar.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=message):
        read(tmp_path, backbone, "twolar", f"teacher.path={tmp_path / 'twolar.jsonl'}")


@pytest.mark.parametrize("key", ["depth=2", "num_negatives=1", "list_size=2"])
def test_triples_have_no_depth_and_nothing_to_sample(tmp_path, backbone, downloads, key):
    (downloads / "bert_cat_ensemble_msmarcopassage_train_scores_ids.tsv").write_text(TRIPLES)
    with pytest.raises(InputError, match=f"data.{key}"):
        read(tmp_path, backbone, "hofstaetter-ensemble", "loss=hinge", f"data.{key}")


def test_every_teacher_from_afar_names_source_size_licence_and_citation():
    for path in sorted((ROOT / "conf" / "teacher").glob("*.yaml")):
        cfg = compose_config("train", f"teacher={path.stem}")
        if any(is_remote(cfg.teacher[key]) for key in ("path", "first_stage") if not _is_missing(cfg.teacher, key)):
            head = path.read_text().partition("\nname:")[0]
            assert "# Source: " in head and "# Size: " in head, path.name
            assert cfg.teacher.licence and "https://" in cfg.teacher.citation, path.name


def _is_missing(node, key: str) -> bool:
    from omegaconf import OmegaConf

    return OmegaConf.is_missing(node, key)


@pytest.mark.parametrize(
    "answer, order, whole",
    [
        ("[2] > [3] > [1]", [1, 2, 0], True),
        ("The ranking is: [3] > [1]", [2, 0, 1], False),
        ("[1] > [1] > [2] > [3]", [0, 1, 2], False),
        ("[4] > [0] > [2]", [1, 0, 2], False),
        ("", [0, 1, 2], False),
    ],
)
def test_answers_are_mended_in_a_defined_way(answer, order, whole):
    assert parse_permutation(answer, 3) == (order, whole)


def test_only_sources_are_downloaded(monkeypatch):
    cfg = compose_config(
        "train", "teacher.citation=https://example.org/paper", "teacher.path=https://example.org/a.run"
    )
    fetched = []
    monkeypatch.setattr("distill.config.local_files.local_file", lambda address: fetched.append(address) or "a.run")
    local = with_local_files(cfg)
    assert fetched == ["https://example.org/a.run"] and local.teacher.path == "a.run"
    assert local.teacher.citation == "https://example.org/paper"
