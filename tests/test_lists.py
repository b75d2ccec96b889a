"""Training lists: depth, subsets, targets, triples, permutations, the cache on disk, and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import distill.data.lists
import distill.data.teacher_lists
from distill.data.lists import read_lists
from distill.data.teacher_lists import choose_queries, ranks_among
from distill.errors import InputError
from distill.models.parts import load_tokenizer
from distill.sources.runs import read_run
from tests.helpers.configuration import as_tuples, compose_config, decoded_lists


def read(file_overrides, *more):
    return decoded_lists(compose_config("train", *file_overrides, *more))


def test_lists_are_in_the_teachers_order_with_ranks_from_one(file_overrides, collection):
    lists = read(file_overrides)
    teacher = read_run(str(collection["teacher"]))
    assert len(lists) == 6
    for one in lists:
        assert one.doc_ids == teacher[one.query_id].doc_ids
        np.testing.assert_array_equal(one.target, np.arange(1, 11))


def test_depth_cuts_by_first_stage_rank_and_keeps_the_teachers_order(file_overrides, collection, caplog):
    caplog.set_level("INFO")
    lists = read(file_overrides, "data.depth=4")
    first_stage, teacher = read_run(str(collection["first_stage"])), read_run(str(collection["teacher"]))
    for one in lists:
        top = set(first_stage[one.query_id].doc_ids[:4])
        assert one.doc_ids == [doc_id for doc_id in teacher[one.query_id].doc_ids if doc_id in top]
        np.testing.assert_array_equal(one.target, [1, 2, 3, 4])
    assert "data.depth=4: lists are cut by the first-stage rank in" in caplog.text


def test_depth_cuts_the_teachers_own_list_where_no_first_stage_is_named(file_overrides, collection, caplog):
    caplog.set_level("INFO")
    lists = read(file_overrides, "data.depth=4", "teacher.first_stage=null")
    teacher = read_run(str(collection["teacher"]))
    assert all(one.doc_ids == teacher[one.query_id].doc_ids[:4] for one in lists)
    assert "data.depth=4: lists are cut by their own order in" in caplog.text


def test_ties_keep_their_average_rank_after_the_cut(file_overrides, collection):
    lines = [line.split() for line in collection["teacher"].read_text().splitlines()]
    collection["teacher"].write_text("".join(f"{q} Q0 {d} 0 {float(s) // 2} t\n" for q, _, d, _, s, _ in lines))
    lists = read(file_overrides, "data.depth=7")
    for one in lists:
        assert one.target.sum() == 7 * 8 / 2  # average ranks keep the sum
        assert (np.diff(one.target) >= 0).all()
    assert any((np.diff(one.target) == 0).any() for one in lists)


@pytest.mark.parametrize("first_stage", ["null", "teacher"])
def test_a_cut_through_a_tie_leaves_the_ranks_of_what_is_kept(file_overrides, collection, first_stage):
    doc_ids = read_run(str(collection["teacher"]))["q0"].doc_ids
    lines = [f"q0 Q0 {doc_id} 0 {-(place // 4)} t\n" for place, doc_id in enumerate(doc_ids)]  # 4, 4 and 2 tie
    collection["teacher"].write_text("".join(lines))
    source = "null" if first_stage == "null" else collection["teacher"]
    (one,) = read(file_overrides, "data.depth=5", f"teacher.first_stage={source}", "data.num_queries=null")
    np.testing.assert_array_equal(one.target, [2.5, 2.5, 2.5, 2.5, 5.0])


def test_smaller_subsets_lie_within_larger_ones(file_overrides):
    subsets = [{one.query_id for one in read(file_overrides, f"data.num_queries={n}")} for n in (2, 4, 6)]
    assert [len(subset) for subset in subsets] == [2, 4, 6]
    assert subsets[0] < subsets[1] < subsets[2]
    others = {one.query_id for one in read(file_overrides, "data.num_queries=4", "data.subset_seed=1")}
    assert others != subsets[1]


def test_a_subset_does_not_depend_on_the_order_of_the_file():
    query_ids = [f"q{i}" for i in range(50)]
    assert choose_queries(query_ids, 10, 0, "x") == choose_queries(query_ids[::-1], 10, 0, "x")


def test_label_lists_hold_grades_and_the_relevant_passages_that_the_run_missed(file_overrides, collection):
    with open(collection["qrels"], "a") as file:
        file.write("q0 0 d999 3\nq1 0 d998 -1\n")
    with open(collection["passages"], "a") as file:
        file.write("d999\ta bee\nd998\tan ant\n")
    lists = read(file_overrides, "loss=lce")
    first = lists[0]
    assert first.doc_ids[-1] == "d999" and first.target[-1] == 3
    assert len(lists[1].doc_ids) == 10  # a negative grade is not relevant
    assert all(set(one.target) <= {0, 1, 2, 3} for one in lists)


def test_relevant_passages_that_the_run_missed_can_be_left_out(file_overrides, collection, caplog):
    missed = [f"d{900 + place}" for place in range(20)]
    with open(collection["qrels"], "a") as file:
        file.writelines(f"q0 0 {doc_id} 1\n" for doc_id in missed)
    with open(collection["passages"], "a") as file:
        file.writelines(f"{doc_id}\ta bee\n" for doc_id in missed)
    added = read(file_overrides, "loss=lce")
    assert "lists lack 20 of the 32 relevant passages, which were added" in caplog.text
    caplog.clear()
    retrieved = read(file_overrides, "loss=lce", "teacher.add_relevant=false")
    assert "relevant passages" not in caplog.text
    assert [doc_id for doc_id in added[0].doc_ids if doc_id not in missed] == retrieved[0].doc_ids
    assert [one.doc_ids for one in added[1:]] == [one.doc_ids for one in retrieved[1:]]


def test_min_grade_makes_lower_grades_negative(file_overrides):
    lists = read(file_overrides, "loss=bce", "teacher.min_grade=2")
    assert all((one.target > 0).sum() == 1 for one in lists)


def test_margin_mse_learns_from_teacher_scores(file_overrides, collection):
    lists = read(file_overrides, "loss=marginmse")
    teacher = read_run(str(collection["teacher"]))
    np.testing.assert_allclose(lists[0].target, teacher[lists[0].query_id].scores, rtol=1e-7)


@pytest.mark.parametrize("key", ["teacher", "teachers.llm"])
def test_a_score_beyond_float32_is_refused_with_its_line(file_overrides, collection, key):
    lines = collection["teacher"].read_text().splitlines()
    lines[12] = lines[12].rsplit(" ", 2)[0] + " 2e40 t"
    huge = collection["teacher"].with_name("huge.txt")
    huge.write_text("\n".join(lines) + "\n")
    loss = ["loss=marginmse"]
    if key == "teachers.llm":
        loss = ["loss=lce-marginmse", "+loss.teachers.marginmse=llm", "+teacher@teachers.llm=run"]
        loss += ["teachers.llm.scores=true"]
    with pytest.raises(InputError, match=r"huge.txt:13: score 2e\+40 is more than float32 holds.*: rescale the "):
        read(file_overrides, *loss, f"{key}.path={huge}")


def test_training_queries_whose_ends_are_not_read_are_counted(file_overrides, caplog):
    decoded_lists(compose_config("train", *file_overrides))
    assert "longer than" not in caplog.text
    decoded_lists(compose_config("train", *file_overrides, "model.query_length=3"))  # q2 and q5 have four tokens
    assert (
        "training: 2 of 6 queries are longer than model.query_length=3 tokens: their ends are not read (first: q2)"
        in caplog.messages
    )


def test_empty_passages_are_left_out_and_counted(file_overrides, collection, caplog):
    text = collection["passages"].read_text().splitlines()
    collection["passages"].write_text("\n".join(["d0\t", *text[1:]]) + "\n")
    lists = read(file_overrides)
    assert all("d0" not in one.doc_ids for one in lists)
    assert "empty passages left out of the training lists (first: d0)" in caplog.text


@pytest.mark.parametrize("largest", [10, 250_000], ids=["on disk", "in memory"])
def test_lists_that_empty_passages_leave_too_short_are_counted(
    file_overrides, collection, caplog, tmp_path, monkeypatch, largest
):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("distill.data.teacher_lists.MAX_IN_MEMORY", largest)
    ranked = read_run(str(collection["teacher"]))["q0"]
    empty = set(ranked.doc_ids[1:])
    text = [line.split("\t") for line in collection["passages"].read_text().splitlines()]
    collection["passages"].write_text("".join(f"{i}\t{'' if i in empty else words}\n" for i, words in text))
    for _ in range(2):  # the second time, the lists on disk are in the cache
        caplog.clear()
        lists = read(file_overrides)
        short = 6 - len(lists)
        assert short > 0 and "q0" not in [one.query_id for one in lists]
        assert f": {short} of 6 lists have fewer than two passages with a text: left out (first: q0)" in caplog.text


@pytest.mark.parametrize("largest", [10, 250_000], ids=["on disk", "in memory"])
def test_lists_with_fewer_negatives_than_asked_for_are_counted(
    file_overrides, collection, caplog, tmp_path, monkeypatch, largest
):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("distill.data.teacher_lists.MAX_IN_MEMORY", largest)
    monkeypatch.setattr(distill.data.lists, "SUMMED_AT_ONCE", 7)  # within lists
    relevant = [
        f"q{n} 0 {doc_id} 1\n"
        for n in (2, 5)
        for doc_id in read_run(str(collection["first_stage"]))[f"q{n}"].doc_ids[:7]
    ]
    kept = [line for line in collection["qrels"].read_text().splitlines(keepends=True) if line[:2] not in ("q2", "q5")]
    collection["qrels"].write_text("".join(kept + relevant))
    said = "data.num_negatives={}: {} of 6 lists of {} have fewer negatives, and give all of theirs (first: {})"
    for asked, few in ((3, None), (4, (2, "q2")), (9, (6, "q0"))):  # the others have two relevant passages of ten
        caplog.clear()
        read(file_overrides, "loss=lce", f"data.num_negatives={asked}")
        expected = [said.format(asked, few[0], collection["first_stage"], few[1])] if few else []
        assert [message for message in caplog.messages if "num_negatives" in message] == expected


def test_a_list_size_that_no_list_has_is_told(file_overrides, collection, caplog):
    read(file_overrides, "data.list_size=10")
    assert "list_size" not in caplog.text
    read(file_overrides, "data.list_size=11", "data.depth=7")
    said = f"data.list_size=11: is longer than every list of {collection['teacher']}: all are taken whole, the longest "
    assert f"{said}of 7 passages" in caplog.messages


def break_line(path, number: int, line: str) -> None:
    lines = path.read_text().splitlines()
    lines[number - 1] = line
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("name", "line", "override", "message"),
    [
        (
            "teacher",
            "q0 Q0 d77 1 9 t",
            "teacher.first_stage=null",
            "teacher.txt:3: passage d77 is not in .*passages.tsv",
        ),
        (
            "teacher",
            "q0 Q0 d77 1 9 t",
            "data.depth=5",
            "teacher.txt:3: passage d77 of query q0 is not in the first-stage",
        ),
        ("teacher", "", "data.depth=11", "data.depth=11 exceeds the 10 passages of the longest list"),
        ("teacher", "", "data.num_queries=7", "num_queries=7 exceeds the 6 queries"),
    ],
)
def test_bad_input_is_answered_with_place_reason_and_remedy(file_overrides, collection, name, line, override, message):
    break_line(collection[name], 3, line)
    with pytest.raises(InputError, match=message):
        read(file_overrides, override)


def test_a_list_of_one_passage_is_left_out_and_counted(file_overrides, collection, caplog):
    with open(collection["queries"], "a") as file:
        file.write("q6\ta bee\n")
    with open(collection["teacher"], "a") as file:
        file.write("q6 Q0 d1 1 1.0 t\n")
    with open(collection["first_stage"], "a") as file:
        file.write("q6 Q0 d1 1 1.0 t\n")
    assert [one.query_id for one in read(file_overrides, "data.depth=5")] == [f"q{query}" for query in range(6)]
    assert "1 of 7 lists have fewer than two passages at data.depth=5: left out (first: q6)" in caplog.text
    for name in ("teacher", "first_stage"):
        lines = collection[name].read_text().splitlines(keepends=True)
        collection[name].write_text(lines[0] + lines[10])
    with pytest.raises(InputError, match="teacher.txt:1: query q0 has one passage, and so do all 2 queries"):
        read(file_overrides)


@pytest.mark.parametrize("line", ["q77\ta bee", "q2\t "], ids=["unknown", "empty"])
def test_a_query_without_a_text_is_left_out_and_counted(file_overrides, collection, caplog, line):
    break_line(collection["queries"], 3, line)
    assert [one.query_id for one in read(file_overrides)] == ["q0", "q1", "q3", "q4", "q5"]
    assert f"1 of 6 lists are of queries without a text in {collection['queries']}: left out (first: q2)" in caplog.text


@settings(max_examples=100, derandomize=True)
@given(sizes=st.tuples(st.integers(1, 40), st.integers(1, 40)), seed=st.integers(0, 999))
def test_query_subsets_are_nested(sizes, seed):
    query_ids = [f"q{number}" for number in range(40)]
    smaller, larger = (choose_queries(query_ids, size, seed, "x") for size in sorted(sizes))
    assert len(larger) == max(sizes) and set(smaller) <= set(larger) <= set(query_ids)


@settings(max_examples=100, derandomize=True)
@given(ranks=st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_ranks_among_are_average_ranks(ranks):
    expected = [np.mean([place for place, other in enumerate(sorted(ranks), 1) if other == rank]) for rank in ranks]
    np.testing.assert_array_equal(ranks_among(np.array(ranks, float)), expected)


def test_relevant_passages_that_the_collection_lacks_are_left_out_and_counted(file_overrides, collection, caplog):
    with open(collection["qrels"], "a") as file:
        file.write("q0 0 d999 1\n")  # neither in the run nor in the collection
    lists = read(file_overrides, "loss=lce")
    assert all("d999" not in one.doc_ids for one in lists)
    assert "lacks 1 of the relevant passages missing from" in caplog.text


def test_ranks_close_the_gap_of_an_empty_passage(file_overrides, collection):
    text = collection["passages"].read_text().splitlines()
    collection["passages"].write_text("\n".join(["d0\t", *text[1:]]) + "\n")
    for one in read(file_overrides):
        np.testing.assert_array_equal(one.target, np.arange(1, len(one.doc_ids) + 1))


@pytest.mark.parametrize("overrides", [["loss=ranknet", "data.depth=6"], ["loss=lce"], ["loss=marginmse"]])
def test_lists_on_disk_are_those_in_memory_and_are_made_once(file_overrides, monkeypatch, tmp_path, overrides):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    expected = as_tuples(read(file_overrides, *overrides))
    monkeypatch.setattr(distill.data.teacher_lists, "MAX_IN_MEMORY", 5)
    monkeypatch.setattr(distill.data.lists, "BLOCK", 2)
    assert as_tuples(read(file_overrides, *overrides)) == expected
    monkeypatch.setattr(distill.data.lists, "_write", None)  # not called again
    assert as_tuples(read(file_overrides, *overrides)) == expected
    with pytest.raises(TypeError):
        read(file_overrides, *overrides, "data.num_queries=3")  # other lists


def lists_of(file_overrides):
    cfg = compose_config("train", *file_overrides, "loss=ranknet-lce")
    return read_lists(cfg, load_tokenizer(cfg.backbone.name))


def test_the_checksum_of_lists_does_not_depend_on_where_their_texts_are(
    file_overrides, collection, monkeypatch, tmp_path, in_process
):
    expected = lists_of(file_overrides).checksum()
    with open(collection["passages"], "a") as file:
        file.write("d99\tanother bee\n")
    for name in ("passages", "queries"):
        lines = collection[name].read_text().splitlines(keepends=True)
        collection[name].write_text("".join(reversed(lines)))
    assert lists_of(file_overrides).checksum() == expected
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(distill.data.teacher_lists, "MAX_IN_MEMORY", 5)  # then on disk
    monkeypatch.setattr(distill.data.lists, "SUMMED_AT_ONCE", 7)
    assert lists_of(file_overrides).checksum() == expected


@pytest.mark.parametrize("most", [100_000, 10], ids=["all tokens", "a sample of them"])
def test_the_checksum_of_lists_tells_apart_ids_targets_and_texts(file_overrides, monkeypatch, most):
    monkeypatch.setattr(distill.data.lists, "MAX_SUMMED", most)
    lists = lists_of(file_overrides)
    expected, queries, passages = lists.checksum(), lists.queries, lists.passages
    columns = [lists.query_rows, lists.rows, *lists.targets.values()]
    for values in (*columns, queries.hashes, passages.hashes, queries.tokens, passages.tokens):
        before = values.copy()
        values[:] = np.roll(before, 1)
        assert lists.checksum() != expected
        values[:] = before
    assert lists.checksum() == expected


def test_the_cache_tells_apart_what_keeps_other_lists(file_overrides, monkeypatch, tmp_path, collection):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(distill.data.teacher_lists, "MAX_IN_MEMORY", 5)
    first, *_ = collection["qrels"].read_text().splitlines(keepends=True)
    collection["qrels"].write_text(first)  # of one query
    mixture = ["loss=ranknet-lce"]
    assert len(read(file_overrides, *mixture)) == 6
    assert len(read(file_overrides, *mixture, "data.num_negatives=3")) == 1  # negatives are drawn beside a relevant one
    assert len(read(file_overrides, *mixture)) == 6
    guided = ["loss=lce", "loss.guided=true", "teacher.scores=true"]  # scores only guide it: the others teach nothing
    assert len(read(file_overrides, *guided)) == len(read(file_overrides, "loss=lce")) == 1


@pytest.mark.parametrize("on_disk", [False, True])
def test_ranks_of_negatives_are_read_from_memory_and_from_disk(file_overrides, monkeypatch, tmp_path, on_disk):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    if on_disk:
        monkeypatch.setattr(distill.data.teacher_lists, "MAX_IN_MEMORY", 5)
    assert read(file_overrides, "loss=lce", "data.negatives.ranks=[2,6]")


def test_labels_that_match_nothing_are_an_error(file_overrides, collection):
    wrong = collection["qrels"].with_name("wrong.txt")
    wrong.write_text("".join(f"other{n} 0 d{n} 1\n" for n in range(5)))
    with pytest.raises(InputError, match="teacher.qrels=.*wrong.txt: no list of .* has both a relevant and an irrelev"):
        read(file_overrides, "loss=ranknet-lce", f"teacher.qrels={wrong}")
    gold = ["+loss.teachers={lce:gold}", f"teachers.gold.qrels={wrong}"]
    with pytest.raises(InputError, match="teachers.gold.qrels=.*wrong.txt: judges no passage of the lists in .* relev"):
        read(file_overrides, "loss=ranknet-lce", "+teacher@teachers.gold=run", *gold)
