"""Batches: sampling, epochs, workers and ranks."""

import numpy as np
from conftest import compose_config
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.data import BatchLoader, choose_passages
from distill.lists import read_lists
from distill.model import load_tokenizer
from distill.tokens import PairTemplate


def loader_of(file_overrides, *more, rank=0, num_ranks=1):
    cfg = compose_config("train", *file_overrides, *more)
    tokenizer = load_tokenizer(cfg.backbone.name)
    return BatchLoader(read_lists(cfg, tokenizer), PairTemplate.of(tokenizer), cfg, rank, num_ranks)


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
