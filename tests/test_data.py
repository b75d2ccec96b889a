"""Batches: sampling, epochs, workers and ranks."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill.config.checks import check_train
from distill.data.lists import read_lists
from distill.data.loader import BatchLoader, choose_passages, with_both_kinds
from distill.data.pairs import PairTemplate
from distill.errors import InputError
from distill.models.parts import load_tokenizer
from distill.sources.qrels import read_qrels
from distill.sources.runs import read_run
from tests.helpers.configuration import compose_config


def loader_of(file_overrides, *more, rank=0, num_ranks=1):
    cfg = compose_config("train", *file_overrides, *more)
    tokenizer = load_tokenizer(cfg.backbone.name)
    return BatchLoader(read_lists(cfg, tokenizer), PairTemplate.of(tokenizer), cfg, rank, num_ranks)


def test_sampled_lists_hold_one_relevant_passage_and_change_each_epoch(file_overrides):
    loader = loader_of(file_overrides, "loss=lce", "data.num_negatives=3", "train.batch_size=6")
    epochs = [loader[epoch] for epoch in (0, 1)]
    for batch in epochs:
        assert batch.list_sizes.tolist() == [4] * 6
        assert ((batch.targets["label"] > 0).sum(dim=1) == 1).all()
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


@settings(max_examples=100, derandomize=True)
@given(num_passages=st.integers(0, 300), list_size=st.integers(2, 120), seed=st.integers(0, 9))
def test_chosen_passages_are_ascending_and_as_many_as_asked_for(num_passages, list_size, seed):
    scores = np.random.default_rng(seed).normal(size=num_passages).round(1)
    for choice in ("top", "random", "stratified", "quantiles"):
        places = choose_passages(num_passages, list_size, choice, np.random.default_rng(seed), scores)
        assert len(places) == min(num_passages, list_size)
        assert (np.diff(places) > 0).all() and ((places >= 0) & (places < max(num_passages, 1))).all()


def test_top_and_stratified_choices_lie_where_they_say():
    rng = np.random.default_rng(0)
    assert choose_passages(100, 4, "top", rng).tolist() == [0, 1, 2, 3]
    drawn = np.array([choose_passages(100, 4, "stratified", rng) for _ in range(300)])
    for part, places in enumerate(drawn.T):  # each of the four quarters gives one passage, any of its 25
        assert places.min() == 25 * part and places.max() == 25 * part + 24
    assert len(np.unique([choose_passages(100, 4, "random", rng) for _ in range(300)])) == 100


def test_quantiles_are_of_the_scores_and_not_of_the_ranks():
    rng = np.random.default_rng(0)
    scores = np.array([10.0, 6.2, 6.0, *np.linspace(1, 0, 97)])  # parts: 7.5 to 10, 5 to 7.5, 2.5 to 5, 0 to 2.5
    drawn = [choose_passages(100, 4, "quantiles", rng, scores).tolist() for _ in range(300)]
    assert {one[0] for one in drawn} == {0, 1}  # 10 is nearest to a level above 8.1, 6.2 to any below
    assert {place for one in drawn for place in one[1:3]} <= {0, 1, 2, 3}  # nearest to 2.5 to 5 are 6, if left, or 1
    assert len({one[3] for one in drawn}) > 50 and max(one[3] for one in drawn) > 90  # any of the lowest part
    ranks = [choose_passages(100, 4, "stratified", rng) for _ in range(300)]
    assert max(one[1] for one in ranks) > 40


def test_equal_scores_are_drawn_from_and_no_score_counts_as_the_lowest():
    rng = np.random.default_rng(0)
    drawn = [choose_passages(8, 3, "quantiles", rng, np.zeros(8)).tolist() for _ in range(600)]
    assert len({tuple(one) for one in drawn}) == 56  # every choice of 3 of 8
    assert {*np.ravel([choose_passages(8, 3, "quantiles", rng, np.full(8, np.nan)) for _ in range(200)])} == {*range(8)}
    scores = np.array([9.0, np.nan, 1.0])
    assert {tuple(choose_passages(3, 2, "quantiles", rng, scores)) for _ in range(200)} == {(0, 1), (0, 2)}


def test_quantiles_keep_the_scores_beside_what_the_loss_learns_from(file_overrides):
    chosen = ["data.list_size=4", "data.list_choice=quantiles", "teacher.scores=true", "train.batch_size=6"]
    loader, whole = loader_of(file_overrides, *chosen), loader_of(file_overrides, "train.batch_size=6")
    assert [*loader.lists.targets] == ["rank", "score"] and [*whole.lists.targets] == ["rank"]
    assert [*loader[0].targets] == ["rank"] and loader[0].targets["rank"].tolist() == [[1, 2, 3, 4]] * 6
    rows, targets = loader.lists[0]
    assert rows.tolist() == whole.lists[0][0].tolist() and (np.diff(targets["score"]) <= 0).all()


@pytest.mark.parametrize("more", [["teacher.scores=false"], ["teacher.path=null", "loss=lce"]])
def test_quantiles_without_scores_are_refused(file_overrides, more):
    chosen = [*file_overrides, "data.list_size=4", "data.list_choice=quantiles"]
    with pytest.raises(InputError, match=r"data.list_choice=quantiles needs the teacher's scores: give teacher.path"):
        check_train(compose_config("train", *chosen, *more))


def test_a_shorter_list_has_ranks_of_its_own_and_changes_each_epoch(file_overrides):
    loader = loader_of(file_overrides, "data.list_size=4", "train.batch_size=6")
    whole = loader_of(file_overrides, "train.batch_size=6")
    assert loader[0].targets["rank"].tolist() == [[1, 2, 3, 4]] * 6
    assert loader[0].lengths.shape == (24,) and whole[0].lengths.shape == (60,)
    by_query = [
        dict(zip(batch.query_ids, tokens_of(batch), strict=True)) for batch in (loader[0], loader[1], loader[0])
    ]
    assert by_query[0] != by_query[1] and by_query[0] == by_query[2]


def tokens_of(batch) -> list[list[int]]:
    """The tokens of each list of a batch, one after the other."""
    ends = np.cumsum(batch.lengths.numpy())[np.cumsum(batch.list_sizes.numpy()) - 1]
    return [part.tolist() for part in np.split(batch.tokens.numpy(), ends[:-1])]


def equal(one, other) -> bool:
    """Whether two batches are the same, bit by bit."""
    names = ("tokens", "token_types", "lengths", "list_sizes", "mask")
    same = all(torch.equal(getattr(one, name), getattr(other, name)) for name in names)
    same = same and all(torch.equal(one.targets[name], other.targets[name]) for name in one.targets | other.targets)
    return same and one.query_ids == other.query_ids


SAMPLED = ["loss=lce", "data.num_negatives=3", "train.batch_size=4"]


@pytest.mark.parametrize("num_workers", [0, 1, 2])
@pytest.mark.parametrize("first", [0, 5], ids=["from the start", "after a resume"])
def test_any_number_of_workers_prepares_the_same_batches(file_overrides, num_workers, first):
    loader, expected = loader_of(file_overrides, *SAMPLED), loader_of(file_overrides, *SAMPLED)
    batches = list(loader.batches(first, 9, num_workers))
    assert len(batches) == 9 - first
    assert all(equal(batch, expected[first + place]) for place, batch in enumerate(batches))


def test_workers_leave_the_random_stream_of_dropout_alone(file_overrides):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    next(loader_of(file_overrides).batches(0, 2, 0))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("choice", ["top", "random", "stratified"])
def test_a_short_list_for_labels_has_a_relevant_passage(file_overrides, choice):
    loader = loader_of(file_overrides, "loss=lce", "data.list_size=2", f"data.list_choice={choice}")
    whole = [loader.lists[index] for index in range(len(loader.lists))]
    drawn = [loader.draw(position) for position in range(20 * len(whole))]
    others = set()
    for sample in drawn:
        (rows, targets), found = whole[sample.list_index], sample.rows.tolist()
        places = [rows.tolist().index(row) for row in found]
        assert places == sorted(set(places)) and len(places) == 2
        labels = sample.targets["label"]
        assert labels.tolist() == targets["label"][places].tolist() and max(labels) > 0
        others |= {(sample.list_index, place) for place in places if targets["label"][place] <= 0}
    assert len(others) > 2 * len(whole) or choice == "top"


@pytest.mark.parametrize("choice", ["top", "random", "stratified"])
def test_a_short_list_for_labels_has_a_passage_that_is_not_relevant(file_overrides, collection, choice):
    run = read_run(str(collection["first_stage"]))
    relevant = [f"{query_id} 0 {doc_id} 1\n" for query_id, ranked in run.items() for doc_id in ranked.doc_ids[:-2]]
    collection["qrels"].write_text("".join(relevant))
    loader = loader_of(file_overrides, "loss=lce", "data.list_size=3", f"data.list_choice={choice}")
    drawn = [loader.draw(position) for position in range(20 * len(loader.lists))]
    assert all(0 < (sample.targets["label"] > 0).sum() < 3 for sample in drawn)
    assert all(len(set(sample.rows.tolist())) == 3 for sample in drawn)


def test_passages_of_both_kinds_stay_as_they_were_drawn_and_of_one_kind_the_last_is_replaced():
    rng, labels = np.random.default_rng(0), np.array([1, 2, 0, 0, -1])
    before = rng.bit_generator.state
    assert with_both_kinds(np.array([1, 3, 4]), labels, rng).tolist() == [1, 3, 4]
    assert rng.bit_generator.state == before
    replaced = {tuple(with_both_kinds(np.array([0, 1]), labels, rng).tolist()) for _ in range(60)}
    assert replaced == {(0, 2), (0, 3), (0, 4)}
    replaced = {tuple(with_both_kinds(np.array([2, 3, 4]), labels, rng).tolist()) for _ in range(60)}
    assert replaced == {(0, 2, 3), (1, 2, 3)}


@pytest.mark.parametrize("overrides", [SAMPLED, ["train.batch_size=5", "data.list_size=4"]])
def test_ranks_share_out_the_lists_of_every_step(file_overrides, overrides):
    whole = loader_of(file_overrides, *overrides)
    parts = [loader_of(file_overrides, *overrides, rank=rank, num_ranks=2) for rank in range(2)]
    for step in range(7):
        together = whole[step]
        lists = dict(zip(together.query_ids, tokens_of(together), strict=True))
        shares = [part[step] for part in parts]
        found = [pair for batch in shares for pair in zip(batch.query_ids, tokens_of(batch), strict=True)]
        assert sorted(found) == sorted(zip(together.query_ids, tokens_of(together), strict=True))
        assert set(dict(found)) == set(lists)
        loads = [len(batch.tokens) for batch in shares]
        assert abs(loads[0] - loads[1]) <= max(len(tokens) for _, tokens in found)  # no better than the longest list


@settings(max_examples=30, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(epoch=st.integers(0, 1000), negatives=st.integers(1, 9), depth=st.integers(2, 10), seed=st.integers(0, 99))
def test_a_judged_relevant_passage_is_never_a_negative(file_overrides, collection, epoch, negatives, depth, seed):
    qrels, first_stage = read_qrels(str(collection["qrels"])), read_run(str(collection["first_stage"]))
    loader = loader_of(
        file_overrides, "loss=lce", f"data.num_negatives={negatives}", f"data.depth={depth}", f"seed={seed}"
    )
    lists = loader.lists
    for index in range(len(lists)):
        _, rows, targets, _ = loader._sample(epoch, index)
        query_id = lists.query_id(index)
        doc_ids = [lists.passages.text_id(row) for row in rows]
        grades = [qrels[query_id].get(doc_id, 0) for doc_id in doc_ids]
        assert grades[0] >= 1 and all(grade < 1 for grade in grades[1:])
        assert set(doc_ids[1:]) <= set(first_stage[query_id].doc_ids[:depth])
        assert len(set(doc_ids)) == len(doc_ids)
        assert (targets["label"] > 0).tolist() == [True] + [False] * (len(doc_ids) - 1)


def test_a_querys_negatives_do_not_depend_on_which_other_queries_there_are(file_overrides):
    def samples(*more) -> dict[str, list[str]]:
        loader = loader_of(file_overrides, *SAMPLED, *more)
        lists = loader.lists
        return {
            lists.query_id(index): [lists.passages.text_id(row) for row in loader._sample(3, index).rows]
            for index in range(len(lists))
        }

    everything, some = samples(), samples("data.num_queries=3")
    assert len(some) == 3 and some.items() <= everything.items()
