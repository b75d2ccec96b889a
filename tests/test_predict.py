"""What rank and predict take, as in sentence-transformers: lists, Series, arrays, several queries, threads at once."""

import copy
import os
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from distill.data.pairs import PairTemplate
from distill.data.tokens import TokenStore
from distill.errors import InputError
from distill.models import cross_encoder
from distill.models.pair_reading import read_texts
from tests.helpers.backbones import WORDS
from tests.helpers.models import PASSAGES, QUERY, make_model

OTHER = "the ant and the bee"
PAIRS = [(QUERY, PASSAGES[0]), (OTHER, PASSAGES[1]), (QUERY, PASSAGES[2]), (OTHER, ""), (QUERY, PASSAGES[3])]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("backbone") / "bert", "bert")


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory) -> str:
    directory = tmp_path_factory.mktemp("saved") / "model"
    model.save_pretrained(directory)
    return str(directory)


def one_by_one(model) -> np.ndarray:
    """The scores of PAIRS, each ranked by itself."""
    return np.array([model.rank(query, [passage])[1][0] for query, passage in PAIRS], np.float32)


def test_predict_gives_each_pair_the_score_that_rank_and_sentence_transformers_give_it(model, saved, monkeypatch):
    sentence_transformers = pytest.importorskip("sentence_transformers", minversion="6.2")
    scores = model.predict(PAIRS)
    assert scores.dtype == np.float32 and scores.shape == (5,)
    np.testing.assert_allclose(scores, one_by_one(model), atol=1e-6)
    theirs = sentence_transformers.CrossEncoder(saved, device="cpu")
    np.testing.assert_allclose(scores, theirs.predict(PAIRS, show_progress_bar=False), atol=1e-5)
    assert model.predict(PAIRS[1]) == pytest.approx(theirs.predict(PAIRS[1], show_progress_bar=False), abs=1e-5)
    monkeypatch.setattr(cross_encoder, "PAIRS_AT_ONCE", 2)
    np.testing.assert_allclose(model.predict(PAIRS), scores, atol=1e-6)


@pytest.mark.parametrize(
    "form",
    [
        list,
        tuple,
        iter,
        np.array,
        lambda pairs: np.array(pairs, dtype=object),
        pd.Series,
        lambda pairs: pd.DataFrame(pairs).to_numpy(),
        lambda pairs: [[*pair] for pair in pairs],
        lambda pairs: zip(*map(pd.Series, zip(*pairs, strict=True)), strict=True),
    ],
)
def test_predict_takes_pairs_in_any_sequence(model, form):
    np.testing.assert_array_equal(model.predict(form(PAIRS)), model.predict(PAIRS))


def test_predict_of_no_pairs_is_empty(model):
    assert model.predict([]).shape == (0,)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ("a bee", "pairs is a str: expected a list of pairs"),
        (["a bee"], r"pair 0 is a str \(a bee\)"),
        (["a", "b", "c"], "pair 0 is a str"),
        ([("a", "b"), ("a", "b", "c")], "pair 1 holds 3 values"),
        ([("a", None)], r"pair 0 holds 2 values \(str, NoneType\)"),
        (pd.DataFrame({"query": ["a"], "passage": ["b"]}), "pairs is a DataFrame.*to_numpy"),
        ({"a": "b"}, "pairs is a dict"),
    ],
)
def test_predict_refuses_what_is_not_a_list_of_pairs(model, pairs, message):
    with pytest.raises(TypeError, match=message):
        model.predict(pairs)


@pytest.mark.parametrize("form", [list, tuple, pd.Series, lambda values: np.array(values, dtype=object)])
def test_rank_takes_several_queries_at_once(model, form):
    lists = [PASSAGES, [], PASSAGES[:2]]
    results = model.rank(form([QUERY, OTHER, OTHER]), form([form(passages) for passages in lists]))
    for (order, scores), query, passages in zip(results, [QUERY, OTHER, OTHER], lists, strict=True):
        alone = model.rank(query, passages)
        assert order == alone[0]
        np.testing.assert_allclose(scores, alone[1], atol=1e-6)


def test_rank_returns_the_passages_in_its_order_if_asked(model):
    order, scores, passages = model.rank(QUERY, np.array(PASSAGES), return_documents=True)
    assert (order, scores) == model.rank(QUERY, PASSAGES) and passages == [PASSAGES[place] for place in order]
    [(_, _, first)] = model.rank([QUERY], [PASSAGES[:1]], return_documents=True)
    assert first == PASSAGES[:1]


def test_several_queries_are_interpolated_each_with_its_own_scores(model):
    given = [[3.0, 2.0, 1.0, 0.5], [1.0, 2.0]]
    results = model.rank([QUERY, OTHER], [PASSAGES, PASSAGES[:2]], first_stage_scores=given, weight=0.5)
    for result, query, passages, first_stage in zip(
        results, [QUERY, OTHER], [PASSAGES, PASSAGES[:2]], given, strict=True
    ):
        order, scores = model.rank(query, passages, first_stage_scores=first_stage, weight=0.5)
        assert result[0] == order and result[1] == pytest.approx(scores, abs=1e-6)
    with pytest.raises(InputError, match="first_stage_scores has 1 lists: give one for each of 2 queries"):
        model.rank([QUERY, OTHER], [PASSAGES, []], first_stage_scores=given[:1], weight=0.5)


@pytest.mark.parametrize(
    ("query", "passages", "error", "message"),
    [
        (QUERY, "a bee", TypeError, "passages is a str"),
        ([QUERY], "a bee", TypeError, "passages is a str"),
        ([QUERY], ["a bee"], TypeError, "list 0: passages is a str"),
        ([QUERY, OTHER], [["a"]], ValueError, "2 queries and 1 lists of passages"),
        ([QUERY, None], [["a"], ["b"]], TypeError, "list 1: query is a NoneType"),
    ],
)
def test_rank_refuses_a_lone_text_and_unequal_numbers(model, query, passages, error, message):
    with pytest.raises(error, match=message):
        model.rank(query, passages)


@pytest.mark.parametrize(
    ("score", "place"),
    [
        (lambda model: model.rank(QUERY, ["a bee", "\ud83d"]), "passage 1"),
        (lambda model: model.rank("\ud83d", ["a bee"]), "query"),
        (lambda model: model.rank([QUERY, QUERY], [["a"], ["a", "\ud83d"]]), "list 1: passage 1"),
        (lambda model: model.predict([(QUERY, "a"), ("\ud83d", "a")]), "pair 1: query"),
        (lambda model: model.predict((QUERY, "\ud83d")), "pair 0: passage"),
    ],
    ids=range(5),
)
def test_half_of_a_surrogate_pair_is_refused_with_its_place(model, score, place):
    expected = rf"^{place} holds half of a surrogate pair, \\ud83d at character 0, which is no character: leave it out"
    with pytest.raises(InputError, match=expected):
        score(model)
    assert len(model.rank("a bee \U0001f600", ["\0", "\U0001f600"])[0]) == 2


@pytest.mark.parametrize("form", ["{}", " {}\n"])
def test_a_long_query_is_held_once_however_many_passages_it_has(model, form):
    query, passages = "bee " * 25_000, ["sun"] * 300
    changed = copy.copy(model)
    changed.template = replace(model.template, query_text=form)
    for read in (changed.encode, changed.cut_pairs):
        tracemalloc.start()
        read([query] * len(passages), passages)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 30 * len(query)  # a copy for each passage would be 300 times as long


def test_threads_may_rank_and_predict_at_once(model):
    queries = [f"{QUERY} {'bee ' * (number % 7)}" for number in range(60)]
    alone = [model.rank(query, PASSAGES) for query in queries]

    def ask(number: int):
        if number % 2:
            return model.rank(queries[number], PASSAGES)
        order, scores = alone[number][0], model.predict([(queries[number], passage) for passage in PASSAGES])
        return order, [float(scores[place]) for place in order]

    with ThreadPoolExecutor(8) as pool:
        for (order, scores), (expected, values) in zip(pool.map(ask, range(60)), alone, strict=True):
            assert order == expected and scores == pytest.approx(values, abs=1e-6)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_calls(model):
    def resident_kib() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024

    for number in range(200):
        if number == 40:
            before = resident_kib()
        model.rank(f"{QUERY} {number}", PASSAGES)
    assert resident_kib() - before < 1024  # a call that kept its tokens and tensors would keep 10 KiB or more


def test_a_left_sided_tokenizer_keeps_the_ends_of_texts(model):
    tokenizer = model.tokenizer
    try:
        tokenizer.truncation_side = "left"
        (kept,) = read_texts(model.tokenizer, [PASSAGES[3]], 3)
        stored = TokenStore.of(tokenizer, {"d": PASSAGES[3]}, 3)[0]  # as evaluations and trainings read it
    finally:
        tokenizer.truncation_side = "right"
    ends = tokenizer(PASSAGES[3], add_special_tokens=False)["input_ids"][-3:]
    assert kept.tolist() == stored.tolist() == ends


@pytest.mark.parametrize(("query_length", "passage_length"), [(4, 30), (4, 12), (12, 4), (20, 21)])
@pytest.mark.parametrize("side", ["left", "right"])
def test_pairs_are_cut_where_hugging_face_cuts_them(model, side, query_length, passage_length):
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.truncation_side = side
    query, passage = (" ".join(islice(cycle(WORDS), first, first + length)) for first, length in
                      ((0, query_length), (7, passage_length)))  # fmt: skip
    template = replace(PairTemplate.of(tokenizer), max_length=16)
    tokens, types = template.join(*read_texts(tokenizer, [query], 16), *read_texts(tokenizer, [passage], 16))
    theirs = tokenizer(query, passage, truncation="longest_first", max_length=16, return_token_type_ids=True)
    assert tokens.tolist() == theirs["input_ids"] and types.tolist() == theirs["token_type_ids"]


def test_predict_refuses_scores_that_are_not_finite(model):
    weight = model.head.weight.detach().clone()
    try:
        with torch.no_grad():
            model.head.weight.fill_(float("nan"))
        with pytest.raises(InputError, match="passage 0 has the score nan, which is not finite"):
            model.predict(PAIRS)
    finally:
        with torch.no_grad():
            model.head.weight.copy_(weight)


@pytest.mark.long
def test_ten_thousand_calls_take_no_more_memory_than_a_hundred(tmp_path):
    model = make_model(tmp_path / "backbone", "bert")

    def own_memory() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    for call in range(10_100):
        if call == 100:
            before = own_memory()
        model.rank(f"bee {call % 7}", ["the sun", "a hive " * (call % 9 + 1)])
    assert own_memory() - before < 4e6
