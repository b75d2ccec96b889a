"""Large runs on disk give what small runs in memory give, and refuse what they refuse."""

import gzip

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

import distill.sources.large_runs
import distill.sources.opening
import distill.sources.run_columns
import distill.sources.run_tables
import distill.sources.runs
from benchmarks.generate import run_lines
from distill.errors import InputError
from distill.sources.runs import cached_run, read_run
from tests.helpers.configuration import as_tuples, compose_config, decoded_lists


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "runs"


def set_block_rows(monkeypatch, rows: int) -> None:
    for module in (distill.sources.run_tables, distill.sources.run_columns):
        monkeypatch.setattr(module, "BLOCK_ROWS", rows)


def check_equal(run, expected) -> None:
    assert list(run) == list(expected) and len(run) == len(expected)
    for query_id, ranked in expected.items():
        found = run[query_id]
        assert found.doc_ids == ranked.doc_ids
        np.testing.assert_array_equal(found.scores, ranked.scores)
        np.testing.assert_array_equal(found.ranks, ranked.ranks)


def shuffled_lines(num_queries: int = 40, depth: int = 17, seed: int = 0) -> list[str]:
    """Lines of whole queries in a random order within each, with ties of score, and of score and rank."""
    rng = np.random.default_rng(seed)
    lines = []
    for query in range(num_queries):
        for place in rng.permutation(depth):
            lines.append(f"quéry{query} Q0 d{place}·{'x' * (place % 5)} {place // 3} {-(place // 6)} tag")
    return [line + "\n" for line in lines]


@pytest.mark.parametrize("block", [100, 2**12, 2**25], ids=["tiny blocks", "small blocks", "one block"])
@pytest.mark.parametrize("separator", [" ", "\t", "  \t "], ids=["blank", "tab", "mixed"])
@pytest.mark.parametrize("suffix", [".run", ".run.gz"])
def test_a_cached_run_is_the_run_in_memory(tmp_path, monkeypatch, block, separator, suffix):
    monkeypatch.setattr(distill.sources.run_tables, "BLOCK_BYTES", block)
    set_block_rows(monkeypatch, block)
    path = tmp_path / f"a{suffix}"
    text = "".join(line.replace(" ", separator) for line in shuffled_lines())
    path.write_bytes(gzip.compress(text.encode()) if suffix.endswith(".gz") else text.encode())
    run, expected = cached_run(str(path)), read_run(str(path))
    check_equal(run, expected)
    assert "quéry3" in run and "absent" not in run
    with pytest.raises(KeyError):
        run["absent"]


@pytest.mark.parametrize("columns", [["score"], ["rank"], ["score", "rank"]])
def test_a_parquet_run_is_cached_alike(tmp_path, monkeypatch, columns):
    set_block_rows(monkeypatch, 30)
    rows = [line.split() for line in shuffled_lines()]
    values = {"query_id": [row[0] for row in rows], "doc_id": [row[2] for row in rows]}
    values |= {"score": [float(row[4]) for row in rows], "rank": [int(row[3]) for row in rows]}
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pa.table({name: values[name] for name in ("query_id", "doc_id", *columns)}), path)
    check_equal(cached_run(str(path)), read_run(str(path)))


def test_a_large_file_goes_through_the_cache_once(tmp_path, monkeypatch, cache):
    monkeypatch.setattr(distill.sources.opening, "LARGE_FILE", 1000)
    path = tmp_path / "a.run"
    path.write_text("".join(run_lines(20, 10, 1000)))
    run = read_run(str(path))
    assert isinstance(run, distill.sources.large_runs.CachedRun) and len(run) == 20
    monkeypatch.setattr(distill.sources.runs, "_write", None)  # not called again
    check_equal(read_run(str(path)), run)
    assert len([one for one in cache.iterdir() if one.is_dir()]) == 1


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda lines: lines.__setitem__(70, "quéry4 Q0 d1 2\n"), r"a.run:71: 4 columns instead of six"),
        (
            lambda lines: lines.__setitem__(70, lines[70].replace(" Q0", " Q0 Q0")),
            r"a.run:71: 7 columns instead of six",
        ),
        (lambda lines: lines.__setitem__(70, lines[69]), r"a.run:71: passage d\d+·x* appears twice for query quéry4"),
        (
            lambda lines: lines.__setitem__(3, lines[3].replace(" tag", "x tag")),
            r"a.run:4: score '-?\d+x' is not a number",
        ),
        (lambda lines: lines.__setitem__(3, "quéry0 Q0 dx 1 nan t\n"), r"a.run:4: score 'nan' is not finite"),
        (lambda lines: lines.__setitem__(3, "quéry0 Q0 dx inf 1 t\n"), r"a.run:4: rank 'inf' is not finite"),
        (lambda lines: lines.clear(), r"a.run: holds no ranking"),
    ],
)
def test_a_bad_run_is_answered_with_file_line_and_reason(tmp_path, cache, change, message):
    lines = shuffled_lines()
    change(lines)
    (tmp_path / "a.run").write_text("".join(lines))
    with pytest.raises(InputError, match=message):
        cached_run(str(tmp_path / "a.run"))
    assert not [path for path in cache.glob("*") if path.is_dir()]


@pytest.mark.parametrize("block", [100, 2**25], ids=["tiny blocks", "one block"])
def test_lines_of_a_query_need_not_stand_together(tmp_path, monkeypatch, block):
    monkeypatch.setattr(distill.sources.run_tables, "BLOCK_BYTES", block)
    set_block_rows(monkeypatch, block)
    lines = shuffled_lines()
    order = np.random.default_rng(1).permutation(len(lines))
    (tmp_path / "a.run").write_text("".join(lines[place] for place in order))
    check_equal(cached_run(str(tmp_path / "a.run")), read_run(str(tmp_path / "a.run")))
    (tmp_path / "b.run").write_text("".join(lines[place] for place in [*order, order[5]]))
    with pytest.raises(InputError, match=r"b.run:681: passage d\d+·x* appears twice for query quéry"):
        cached_run(str(tmp_path / "b.run"))


def test_a_contradicting_rank_column_is_counted(tmp_path, caplog):
    lines = ["q0 Q0 a 1 1.0 t\n", "q0 Q0 b 2 3.0 t\n", "q1 Q0 a 1 3.0 t\n", "q1 Q0 b 2 1.0 t\n"]
    (tmp_path / "a.run").write_text("".join(lines))
    run = cached_run(str(tmp_path / "a.run"))
    assert run["q0"].doc_ids == ["b", "a"]
    assert "the rank column contradicts the scores in 1 of 2 queries" in caplog.text


def test_training_from_a_cached_run_has_the_same_lists(file_overrides, monkeypatch):
    cfg = compose_config("train", *file_overrides, "data.depth=6")
    memory = decoded_lists(cfg)
    monkeypatch.setattr(distill.sources.opening, "LARGE_FILE", 100)
    assert as_tuples(decoded_lists(cfg)) == as_tuples(memory) != []
