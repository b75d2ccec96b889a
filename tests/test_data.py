"""Training lists: depth, subsets, sampling, targets, and what is refused."""

import numpy as np
import pytest
from conftest import compose_config
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from distill.data import BatchLoader, choose_passages, choose_queries, read_training_data
from distill.errors import InputError
from distill.trec import read_run


def read(file_overrides, *more):
    cfg = compose_config("train", *file_overrides, *more)
    return read_training_data(cfg), cfg


def loader_of(file_overrides, *more):
    data, cfg = read(file_overrides, *more)
    return BatchLoader(data, AutoTokenizer.from_pretrained(cfg.backbone.name), cfg)


def test_lists_are_in_the_teachers_order_with_ranks_from_one(file_overrides, collection):
    data, _ = read(file_overrides)
    teacher = read_run(str(collection["teacher"]))
    assert len(data.lists) == 6
    for one in data.lists:
        assert one.doc_ids == teacher[one.query_id].doc_ids
        np.testing.assert_array_equal(one.target, np.arange(1, 11))


def test_depth_cuts_by_first_stage_rank_and_keeps_the_teachers_order(file_overrides, collection, caplog):
    caplog.set_level("INFO")
    data, _ = read(file_overrides, "data.depth=4")
    first_stage, teacher = read_run(str(collection["first_stage"])), read_run(str(collection["teacher"]))
    for one in data.lists:
        top = set(first_stage[one.query_id].doc_ids[:4])
        assert one.doc_ids == [doc_id for doc_id in teacher[one.query_id].doc_ids if doc_id in top]
        np.testing.assert_array_equal(one.target, [1, 2, 3, 4])
    assert "data.depth=4: lists are cut by the first-stage rank in" in caplog.text


def test_depth_cuts_the_teachers_own_list_where_no_first_stage_is_named(file_overrides, collection, caplog):
    caplog.set_level("INFO")
    data, _ = read(file_overrides, "data.depth=4", "teacher.first_stage=null")
    teacher = read_run(str(collection["teacher"]))
    assert all(one.doc_ids == teacher[one.query_id].doc_ids[:4] for one in data.lists)
    assert "data.depth=4: lists are cut by their own order in" in caplog.text


def test_ties_keep_their_average_rank_after_the_cut(file_overrides, collection):
    lines = [line.split() for line in collection["teacher"].read_text().splitlines()]
    collection["teacher"].write_text("".join(f"{q} Q0 {d} 0 {float(s) // 2} t\n" for q, _, d, _, s, _ in lines))
    data, _ = read(file_overrides, "data.depth=7")
    for one in data.lists:
        assert one.target.sum() == 7 * 8 / 2  # average ranks keep the sum
        assert (np.diff(one.target) >= 0).all()
    assert any((np.diff(one.target) == 0).any() for one in data.lists)


def test_smaller_subsets_lie_within_larger_ones(file_overrides):
    subsets = [{one.query_id for one in read(file_overrides, f"data.num_queries={n}")[0].lists} for n in (2, 4, 6)]
    assert [len(subset) for subset in subsets] == [2, 4, 6]
    assert subsets[0] < subsets[1] < subsets[2]
    others = {one.query_id for one in read(file_overrides, "data.num_queries=4", "data.subset_seed=1")[0].lists}
    assert others != subsets[1]


def test_a_subset_does_not_depend_on_the_order_of_the_file():
    run = {f"q{i}": i for i in range(50)}
    backwards = dict(reversed(run.items()))
    assert choose_queries(run, 10, 0, "x") == choose_queries(backwards, 10, 0, "x")


def test_label_lists_hold_grades_and_the_relevant_passages_that_the_run_missed(file_overrides, collection):
    with open(collection["qrels"], "a") as file:
        file.write("q0 0 d999 3\nq1 0 d998 -1\n")
    with open(collection["passages"], "a") as file:
        file.write("d999\ta bee\nd998\tan ant\n")
    data, _ = read(file_overrides, "loss=lce")
    first = data.lists[0]
    assert first.doc_ids[-1] == "d999" and first.target[-1] == 3
    assert len(data.lists[1].doc_ids) == 10  # a negative grade is not relevant
    assert all(set(one.target) <= {0, 1, 2, 3} for one in data.lists)


def test_min_grade_makes_lower_grades_negative(file_overrides):
    data, _ = read(file_overrides, "loss=bce", "teacher.min_grade=2")
    assert all((one.target > 0).sum() == 1 for one in data.lists)


def test_margin_mse_learns_from_teacher_scores(file_overrides, collection):
    data, _ = read(file_overrides, "loss=marginmse")
    teacher = read_run(str(collection["teacher"]))
    np.testing.assert_array_equal(data.lists[0].target, teacher[data.lists[0].query_id].scores)


def test_sampled_lists_hold_one_relevant_passage_and_change_each_epoch(file_overrides):
    loader = loader_of(file_overrides, "loss=lce", "data.num_negatives=3", "train.batch_size=6")
    epochs = [loader[epoch] for epoch in (0, 1)]
    for batch in epochs:
        assert batch.list_sizes.tolist() == [4] * 6
        assert ((batch.target > 0).sum(dim=1) == 1).all()
    assert sorted(epochs[0].query_ids) == sorted(epochs[1].query_ids)
    assert epochs[0].tokens.tolist() != epochs[1].tokens.tolist()


def test_every_epoch_has_every_list_once_in_another_order(file_overrides):
    loader = loader_of(file_overrides, "train.batch_size=4")
    stream = [query_id for step in range(3) for query_id in loader.query_ids(step)]
    assert sorted(stream[:6]) == sorted(stream[6:]) == [f"q{i}" for i in range(6)]
    assert stream[:6] != stream[6:]


def test_a_batch_is_a_function_of_seed_and_step(file_overrides):
    ahead = loader_of(file_overrides)
    for step in range(7):
        ahead[step]
    assert ahead[7].tokens.tolist() == loader_of(file_overrides)[7].tokens.tolist()
    assert loader_of(file_overrides, "seed=1").query_ids(0) != ahead.query_ids(0) or (
        loader_of(file_overrides, "seed=1").query_ids(1) != ahead.query_ids(1)
    )


def test_empty_passages_are_left_out_and_counted(file_overrides, collection, caplog):
    text = collection["passages"].read_text().splitlines()
    collection["passages"].write_text("\n".join(["d0\t", *text[1:]]) + "\n")
    data, _ = read(file_overrides)
    assert all("d0" not in one.doc_ids for one in data.lists)
    assert "empty passages left out" in caplog.text


def break_line(path, number: int, line: str) -> None:
    lines = path.read_text().splitlines()
    lines[number - 1] = line
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("name", "line", "override", "message"),
    [
        ("teacher", "q77 Q0 d1 1 9 t", "seed=0", "teacher.txt:3: query q77 is not in data.queries \\(1 of 7 queries"),
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
        ("teacher", "", "data.num_queries=7", "data.num_queries=7 exceeds the 6 queries"),
    ],
)
def test_bad_input_is_answered_with_place_reason_and_remedy(file_overrides, collection, name, line, override, message):
    break_line(collection[name], 3, line)
    with pytest.raises(InputError, match=message):
        read(file_overrides, override)


def test_a_list_of_one_passage_is_refused(file_overrides, collection):
    with open(collection["queries"], "a") as file:
        file.write("q6\ta bee\n")
    with open(collection["teacher"], "a") as file:
        file.write("q6 Q0 d1 1 1.0 t\n")
    with pytest.raises(InputError, match="teacher.txt:61: query q6 has one passage: a list to learn from needs two"):
        read(file_overrides)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(num_passages=st.integers(0, 300), list_size=st.integers(2, 120), seed=st.integers(0, 9))
def test_chosen_passages_are_ascending_and_as_many_as_asked_for(num_passages, list_size, seed):
    for choice in ("top", "random", "stratified"):
        places = choose_passages(num_passages, list_size, choice, np.random.default_rng(seed))
        assert len(places) == min(num_passages, list_size)
        assert (np.diff(places) > 0).all() and ((places >= 0) & (places < max(num_passages, 1))).all()


def test_top_and_stratified_choices_lie_where_they_say():
    rng = np.random.default_rng(0)
    assert choose_passages(100, 4, "top", rng).tolist() == [0, 1, 2, 3]
    drawn = np.array([choose_passages(100, 4, "stratified", rng) for _ in range(300)])
    for part, places in enumerate(drawn.T):  # each of the four quarters gives one passage, any of its 25
        assert places.min() == 25 * part and places.max() == 25 * part + 24
    assert len(np.unique([choose_passages(100, 4, "random", rng) for _ in range(300)])) == 100


def test_a_shorter_list_has_ranks_of_its_own_and_changes_each_epoch(file_overrides):
    loader = loader_of(file_overrides, "data.list_size=4", "train.batch_size=6")
    whole = loader_of(file_overrides, "train.batch_size=6")
    assert loader[0].target.tolist() == [[1, 2, 3, 4]] * 6
    assert loader[0].lengths.shape == (24,) and whole[0].lengths.shape == (60,)
    by_query = [
        dict(zip(batch.query_ids, tokens_of(batch), strict=True)) for batch in (loader[0], loader[1], loader[0])
    ]
    assert by_query[0] != by_query[1] and by_query[0] == by_query[2]


def tokens_of(batch) -> list[list[int]]:
    """The tokens of each list of a batch, one after the other."""
    ends = np.cumsum(batch.lengths.numpy())[np.cumsum(batch.list_sizes.numpy()) - 1]
    return [part.tolist() for part in np.split(batch.tokens.numpy(), ends[:-1])]
