"""The first stage's score as a number in the pair: its tokens, its scale, and who must give it."""

import json
import logging

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

from distill.config.rules import options_of_key
from distill.data.lists import read_lists
from distill.data.loader import BatchLoader
from distill.data.pairs import SCALES, PairTemplate, score_numbers
from distill.data.tokens import TokenStore
from distill.errors import InputError
from distill.evaluation.rerank import TaskReranker
from distill.evaluation.tasks import read_task
from distill.export.formats import FORMATS, export
from distill.models.cross_encoder import CrossEncoder
from distill.models.parts import load_tokenizer
from distill.sources.runs import read_run
from distill.sources.texts import read_passages, read_queries
from tests.helpers.backbones import FAMILIES, WORDS, make_backbone
from tests.helpers.commands import run_evaluate
from tests.helpers.configuration import compose_config
from tests.helpers.models import PASSAGES, QUERY
from tests.helpers.training import run_train

NUMBERS = [str(number) for number in range(101)]
FIRST = 5 + len(WORDS)  # token of 0, after the special tokens and the words
SCORES = [9.0, 5.0, 7.5, 1.0]  # of PASSAGES
WITH_SCORE = "model.first_stage_score=min-max"


@pytest.fixture(scope="module")
def counting(tmp_path_factory):
    """A tiny BERT whose tokenizer has the numbers."""
    return make_backbone(tmp_path_factory.mktemp("counting"), words=[*WORDS, *NUMBERS])


@pytest.fixture
def model(counting):
    torch.manual_seed(0)
    model = CrossEncoder.from_backbone(str(counting), "cls", 8, 20, first_stage_score="min-max").eval()
    torch.nn.init.normal_(model.head.weight)
    return model


@pytest.fixture
def overrides(file_overrides, counting):
    return [*file_overrides, f"backbone.name={counting}", WITH_SCORE]


# The pair


@pytest.mark.parametrize("family", FAMILIES)
def test_the_score_is_a_segment_between_query_and_passage(tmp_path, family):
    tokenizer = AutoTokenizer.from_pretrained(make_backbone(tmp_path, family, words=[*WORDS, *NUMBERS]))
    template = PairTemplate.of(tokenizer, "min-max")
    texts = "a bee finds", "rails of iron"
    query, passage = (np.asarray(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"])
    tokens, types = template.join(query, passage, 57)
    separator = " </s> </s> " if family == "roberta" else " [SEP] "
    start, end = ("<s> ", " </s>") if family == "roberta" else ("[CLS] ", " [SEP]")
    written = start + texts[0] + separator + "57" + separator + texts[1] + end
    assert tokens.tolist() == tokenizer.convert_tokens_to_ids(written.split())
    second = tokenizer(*texts, return_token_type_ids=True)["token_type_ids"][-1]
    assert types.tolist() == [0] * (len(tokens) - 4) + [second] * 4
    assert template.num_special == len(tokens) - len(query) - len(passage)
    plain = PairTemplate.of(tokenizer)
    assert template.num_special == plain.num_special + 1 + len(plain.middle)


def test_the_score_takes_the_authors_place(counting):
    # Askari et al. make it the end of the first text: "query [SEP] 57"
    tokenizer = AutoTokenizer.from_pretrained(counting)
    query, passage = (np.asarray(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in ("a bee", "snow"))
    tokens, types = PairTemplate.of(tokenizer, "global").join(query, passage, 57)
    expected = tokenizer("a bee [SEP] 57", "snow", return_token_type_ids=True)
    assert tokens.tolist() == expected["input_ids"] and types.tolist() == expected["token_type_ids"]


def test_numbers_of_several_tokens_count_for_the_longest_pair(tmp_path):
    words = [*WORDS, *NUMBERS]
    tokenizer = AutoTokenizer.from_pretrained(make_backbone(tmp_path, words=words))
    template = PairTemplate.of(tokenizer, "min-max")
    template.middles = [*template.middles[:100], np.append(template.middles[100], 7)]  # 100 has two tokens
    assert template.num_special == PairTemplate.of(tokenizer, "min-max").num_special + 1


def test_the_passage_is_cut_and_the_score_is_not(counting):
    template = PairTemplate.of(AutoTokenizer.from_pretrained(counting), "min-max")
    template.max_length = 12
    tokens, _ = template.join(np.full(3, 7, np.int32), np.full(30, 8, np.int32), 100)
    assert len(tokens) == 12 and (tokens == 7).sum() == 3 and (tokens == 8).sum() == 4
    assert tokens.tolist().count(FIRST + 100) == 1


def test_a_pair_without_the_score_that_it_needs_is_refused(counting):
    template = PairTemplate.of(AutoTokenizer.from_pretrained(counting), "min-max")
    with pytest.raises(InputError, match="reads the first stage's score of each passage, and none is given"):
        template.join(np.zeros(2, np.int32), np.zeros(2, np.int32))


@pytest.mark.parametrize("words", [WORDS, [*WORDS, *NUMBERS[:-1]]])
def test_a_tokenizer_without_the_numbers_is_refused(tmp_path, words):
    with pytest.raises(InputError, match="model.first_stage_score: the tokenizer has no tokens for the numbers"):
        CrossEncoder.from_backbone(str(make_backbone(tmp_path, words=words)), first_stage_score="min-max")


# The scale


def test_min_max_by_hand():
    # from 3 to 13: 8 is half-way, 1 + floor(49.5) = 50; 12.99 is 0.999 of the way, 1 + floor(98.901) = 99
    scores = np.array([13.0, 3.0, 8.0, np.nan, 12.99])
    assert score_numbers(scores, "min-max").tolist() == [100, 1, 50, 0, 99]
    assert score_numbers(-scores, "min-max").tolist() == [1, 100, 50, 0, 1]


def test_min_max_of_very_large_and_very_small_scores():
    for scale in (1e308, 1e-310):
        assert score_numbers(scale * np.array([1.0, -1.0, 0.0, np.nan]), "min-max").tolist() == [100, 1, 50, 0]


def test_global_by_hand():
    # 12.5 / 50 is a quarter: 1 + floor(24.75) = 25
    assert score_numbers(np.array([0.0, 12.5, 50.0, 99.0, -3.0, np.nan]), "global").tolist() == [1, 25, 100, 100, 1, 0]


@pytest.mark.parametrize("scores", [[4.0], [4.0, 4.0, np.nan], [np.nan, np.nan], []])
def test_equal_scores_are_the_highest_and_absent_ones_are_zero(scores):
    expected = [0 if np.isnan(score) else 100 for score in scores]
    assert score_numbers(np.array(scores), "min-max").tolist() == expected


def test_the_configuration_offers_every_scale():
    assert options_of_key(compose_config("train"), "model.first_stage_score") == SCALES


# Training lists


def read(overrides, *more):
    cfg = compose_config("train", *overrides, *more)
    return read_lists(cfg, load_tokenizer(cfg.backbone.name)), cfg


def numbers_by_id(lists, index) -> dict[str, int]:
    rows, _ = lists[index]
    return {lists.passages.text_id(row): int(n) for row, n in zip(rows, lists.numbers_of(index), strict=True)}


def place_numbers(depth: int) -> list[int]:
    """The numbers of the small collection, whose first-stage scores are 19, 18, 17 ... in each list."""
    return [1 + int(99 * (depth - 1 - place) / (depth - 1)) for place in range(depth)]


@pytest.mark.parametrize("loss", ["ranknet", "marginmse", "lce", "ranknet-lce"])
@pytest.mark.parametrize("depth", [None, 4])
def test_training_scales_the_list_that_is_re_ranked(overrides, collection, loss, depth):
    lists, _ = read(overrides, f"loss={loss}", f"data.depth={'null' if depth is None else depth}")
    first_stage = read_run(str(collection["first_stage"]))
    for index in range(len(lists)):
        expected = dict(zip(first_stage[lists.query_id(index)].doc_ids, place_numbers(depth or 10), strict=False))
        found = numbers_by_id(lists, index)
        assert {doc_id: expected.get(doc_id, 0) for doc_id in found} == found
        assert max(found.values()) == 100 and len(found) >= (depth or 10)


def test_passages_that_are_no_negatives_still_count_for_the_scale(overrides, collection):
    lists, _ = read(overrides, "loss=lce", "data.negatives.ranks=[4,6]")
    first_stage = read_run(str(collection["first_stage"]))
    for index in range(len(lists)):
        expected = dict(zip(first_stage[lists.query_id(index)].doc_ids, place_numbers(10), strict=True))
        found = numbers_by_id(lists, index)
        assert 2 < len(found) < 10 and found.items() <= expected.items()


def test_training_reads_the_pairs_that_evaluation_reads(overrides, model):
    lists, cfg = read(overrides, "data.depth=7")
    task_cfg = compose_config("evaluate", "model=m", "task=files", *(o for o in overrides if o.startswith("task.")))
    task_cfg.task.depth = 7
    reranker = TaskReranker(read_task(task_cfg.task), model)
    reranker.passages = TokenStore.of(model.tokenizer, read_passages(cfg.data.passages, None), 16)
    batch = BatchLoader(lists, model.template, cfg)[0]
    seen = [pair.tolist() for pair in torch.split(batch.tokens, batch.lengths.tolist())]
    for query_id, size in zip(batch.query_ids, batch.list_sizes.tolist(), strict=True):
        trained, seen = seen[:size], seen[size:]
        assert sorted(trained) == sorted(tokens.tolist() for tokens, _ in reranker._pairs(model, query_id)[0])


def test_a_relevant_passage_that_the_first_stage_missed_is_zero(overrides, collection, caplog):
    caplog.set_level(logging.INFO)
    with open(collection["qrels"], "a") as file:
        file.write("q0 0 d999 3\n")
    with open(collection["passages"], "a") as file:
        file.write("d999\ta bee\n")
    lists, _ = read(overrides, "loss=lce")
    numbers = numbers_by_id(lists, 0)
    assert numbers.pop("d999") == 0 and sorted(numbers.values(), reverse=True) == place_numbers(10)
    assert f"{collection['first_stage']}: lacks 1 of the training passages: 0 is read" in caplog.text


def test_scores_are_scaled_before_passages_are_drawn(overrides, counting):
    lists, cfg = read(overrides, "loss=lce", "data.num_negatives=2")
    template = PairTemplate.of(AutoTokenizer.from_pretrained(counting), "min-max")
    loader = BatchLoader(lists, template, cfg)
    whole = [numbers_by_id(lists, index) for index in range(len(lists))]
    drawn = set()
    for epoch in range(20):
        for index, numbers in enumerate(whole):
            _, rows, _, found = loader._sample(epoch, index)
            assert found.tolist() == [numbers[lists.passages.text_id(row)] for row in rows]
            drawn |= set(found.tolist())
    assert drawn == set(place_numbers(10))
    batch = loader[0]
    in_batch = batch.tokens[batch.tokens >= FIRST] - FIRST
    assert len(in_batch) == len(batch.lengths) == 6 and set(in_batch.tolist()) <= set(place_numbers(10))


def test_lists_on_disk_hold_the_same_numbers(overrides, monkeypatch, tmp_path):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    small, _ = read(overrides, "data.depth=5")
    monkeypatch.setattr("distill.data.teacher_lists.MAX_IN_MEMORY", 1)
    for scale in ("min-max", "global", "null"):  # each in its own place
        large, _ = read(overrides, "data.depth=5", f"model.first_stage_score={scale}")
        if scale == "min-max":
            assert [numbers_by_id(large, i) for i in range(6)] == [numbers_by_id(small, i) for i in range(6)]
        elif scale == "global":
            assert set(large.numbers.read().tolist()) == {1 + int(99 * score / 50) for score in range(15, 20)}
        else:
            assert large.numbers is None and large.numbers_of(0) is None


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["teacher.first_stage=null"], "first_stage_score=min-max needs teacher.first_stage, the run whose scores"),
        (["teacher.format=triples", "data.depth=null"], "triples come without a first stage's list: set it to null"),
        (["model.first_stage_score=z"], "model.first_stage_score=z is unknown: choose one of min-max, global"),
    ],
)
def test_a_configuration_without_scores_is_refused(overrides, more, reason):
    from distill.config.checks import check_train

    with pytest.raises(InputError, match=reason):
        check_train(compose_config("train", *overrides, *more))


# A model that reads it


def test_a_model_ranks_with_the_scores_of_the_list(model, counting):
    order, scores = model.rank(QUERY, PASSAGES, first_stage_scores=SCORES)
    tokenizer, backbone = model.tokenizer, AutoModel.from_pretrained(counting).eval()
    for index, score in zip(order, scores, strict=True):
        number = score_numbers(np.array(SCORES), "min-max")[index]
        inputs = tokenizer(f"{QUERY} [SEP] {number}", PASSAGES[index], return_tensors="pt", split_special_tokens=False)
        with torch.no_grad():
            state = backbone(**inputs).last_hidden_state[0, 0]
        assert score == pytest.approx((state @ model.head.weight[0] + model.head.bias).item(), abs=1e-4)
    assert model.rank(QUERY, PASSAGES, first_stage_scores=SCORES[::-1])[1] != scores
    assert model.rank(QUERY, [], first_stage_scores=[]) == ([], [])


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        (None, "this model reads the first stage's score of each passage: give first_stage_scores"),
        ([1.0, 2.0], "^first_stage_scores holds 2 scores for 4 passages: give one for each, in their order$"),
        ([1.0, 2.0, 3.0, float("nan")], "^first_stage_scores: passage 3 has the score nan: must be finite$"),
        (3, "^first_stage_scores=3: must be a list of numbers$"),
        ("1234", "^first_stage_scores=1234: must be a list of numbers$"),
        (b"1234", "^first_stage_scores=b'1234': must be a list of numbers$"),
        ({1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0}, "^first_stage_scores={1: 1.0, .*: must be a list of numbers$"),
        (["1", "2", "3", "4"], "^first_stage_scores=.'1', .*: must be a list of numbers$"),
        (["a", "b", "c", "d"], "^first_stage_scores=.'a', .*: must be a list of numbers$"),
        ([[1], [2, 3], [4], [5]], "^first_stage_scores=..1., .*: must be a list of numbers$"),
        ([[1.0], [2.0], [3.0], [4.0]], "^first_stage_scores=..1.0., .*: must be a list of numbers$"),
        ([1, 2, 3, 10**400], "^first_stage_scores=.1, 2, 3, 1000.*: must be a list of numbers$"),
    ],
)
def test_ranking_without_fitting_scores_is_refused(model, scores, reason):
    with pytest.raises(InputError, match=reason):
        model.rank(QUERY, PASSAGES, first_stage_scores=scores)
    if scores is not None:
        with pytest.raises(InputError):
            model.rank([QUERY], [PASSAGES], first_stage_scores=[scores])


@pytest.mark.parametrize("scores", [3, "12", {0: [1.0], 1: [2.0]}])
def test_the_scores_of_several_queries_are_a_list(model, scores):
    with pytest.raises(InputError, match="^first_stage_scores=.*: must be a list of numbers for each query$"):
        model.rank([QUERY, QUERY], [PASSAGES[:1]] * 2, first_stage_scores=scores)


@pytest.mark.parametrize("kind", [tuple, iter, np.array, torch.tensor])
def test_scores_may_stand_in_any_sequence(model, kind):
    expected = model.rank(QUERY, PASSAGES, first_stage_scores=SCORES)
    assert model.rank(QUERY, PASSAGES, first_stage_scores=kind(SCORES)) == expected


def test_a_model_that_reads_no_scores_interpolates_with_them(backbone):
    model = CrossEncoder.from_backbone(str(backbone), "cls", 8, 20)
    with pytest.raises(InputError, match="hold no weight to interpolate with"):
        model.rank(QUERY, PASSAGES, first_stage_scores=SCORES)
    order, _ = model.rank(QUERY, PASSAGES, first_stage_scores=SCORES, weight=0.0)
    assert order == sorted(range(len(SCORES)), key=lambda index: -SCORES[index])


def test_a_saved_model_reads_scores_again(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    settings = json.loads((tmp_path / "model" / "distill.json").read_text())
    del settings["crc32"]
    assert settings == {"query_length": 8, "passage_length": 20, "first_stage_score": "min-max"}
    again = CrossEncoder.from_pretrained(str(tmp_path / "model"))
    assert again.max_length == model.max_length == 8 + 20 + 3 + 2
    assert again.rank(QUERY, PASSAGES, first_stage_scores=SCORES) == model.rank(
        QUERY, PASSAGES, first_stage_scores=SCORES
    )


def test_a_second_stage_reads_what_the_first_one_read(model, tmp_path):
    name = str(tmp_path / "model")
    model.save_pretrained(name)
    second = CrossEncoder.from_backbone(name, "cls", 8, 20, first_stage_score="min-max")
    assert torch.equal(second.head.weight, model.head.weight)
    for given, shown in ((None, "null"), ("global", "global")):
        with pytest.raises(InputError, match=f"trained with model.first_stage_score=min-max, but here it is {shown}"):
            CrossEncoder.from_backbone(name, "cls", 8, 20, first_stage_score=given)


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("distill.json", '{"query_length": 8, "passage_length": 20}', "only one of modules.json and distill.json says"),
        (
            "distill.json",
            '{"query_length": 8, "passage_length": 20, "first_stage_score": "z"}',
            "first_stage_score=z: must be one of min-max, global",
        ),
    ],
)
def test_a_directory_that_contradicts_itself_is_refused(model, tmp_path, file, text, reason):
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / file).write_text(text)
    with pytest.raises(InputError, match=reason):
        CrossEncoder.from_pretrained(str(tmp_path / "model"))


@pytest.mark.parametrize("target", FORMATS)
def test_no_other_library_gets_it(model, tmp_path, target):
    with pytest.raises(InputError, match=f"{target}: this model reads the first stage's scores, which other libraries"):
        export(model, tmp_path / "out", target)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("trust", [False, True])
def test_sentence_transformers_refuses_its_directory(model, tmp_path, trust):
    sentence_transformers = pytest.importorskip("sentence_transformers", minversion="6.2")
    model.save_pretrained(tmp_path / "model")
    with pytest.raises((ValueError, ImportError), match="TransformerWithFirstStageScore"):
        sentence_transformers.CrossEncoder(
            str(tmp_path / "model"), device="cpu", local_files_only=True, trust_remote_code=trust
        )


def test_pyterrier_takes_the_score_column(model):
    pytest.importorskip("pyterrier", reason="python-terrier is not installed")
    import pandas as pd

    from distill.pyterrier import Reranker

    rows = [
        ("q1", QUERY, str(number), text, score, number)
        for number, (text, score) in enumerate(zip(PASSAGES, SCORES, strict=True))
    ]
    frame = pd.DataFrame(rows, columns=["qid", "query", "docno", "text", "score", "rank"])
    found = Reranker(model)(frame)
    order, scores = model.rank(QUERY, PASSAGES, first_stage_scores=SCORES)
    assert found["docno"].tolist() == list(map(str, order)) and found["score"].tolist() == scores
    with pytest.raises(Exception, match="score"):
        Reranker(model)(frame.drop(columns="score"))


def test_as_a_teacher_it_reads_the_runs_scores(model, collection, tmp_path):
    from distill.teachers.ensemble import score_lists

    model.save_pretrained(tmp_path / "model")
    run = {"q0": read_run(str(collection["first_stage"]))["q0"].cut(5)}
    queries, passages = read_queries(str(collection["queries"])), read_passages(str(collection["passages"]), None)
    names = ["passages=p", "queries=q", "run=r", "llm@teacher.llm=cross-encoder"]
    cfg = compose_config("annotate", *names, f"teacher.llm.model={tmp_path / 'model'}")
    ranking, _ = score_lists(run, queries, passages, cfg)
    texts = [passages[doc_id] for doc_id in run["q0"].doc_ids]
    order, scores = model.rank(queries["q0"], texts, first_stage_scores=run["q0"].scores)
    assert ranking["q0"].doc_ids == [run["q0"].doc_ids[place] for place in order]
    np.testing.assert_allclose(ranking["q0"].scores, scores, atol=1e-5)


# Training and evaluation


@pytest.mark.parametrize("loss", ["ranknet", "lce"])
def test_a_student_trains_and_is_evaluated_with_the_score(tmp_path, overrides, collection, loss):
    out = tmp_path / "out"
    results = run_train(out, *overrides, f"loss={loss}", "data.depth=8", "task.depth=8", "task.measures=[nDCG@10]")
    settings = json.loads((out / "model" / "distill.json").read_text())
    assert settings["first_stage_score"] == "min-max"
    card = (out / "model" / "README.md").read_text()
    assert "first_stage_scores=[" in card and "and the first stage's score (min-max)" in card
    assert "sentence_transformers" not in card and "sentence-transformers" not in card
    task = [f"task.{name}={collection[name]}" for name in ("passages", "queries", "qrels")]
    run = run_evaluate(
        tmp_path / "eval",
        *(f"model={out / 'model'}", "task=files", *task, f"task.run={collection['first_stage']}", "task.depth=8"),
        *("task.measures=[nDCG@10]", "latency_queries=2"),
    )
    assert run.returncode == 0, run.stderr
    again = json.loads((tmp_path / "eval" / "results.json").read_text())
    assert again["test/files/nDCG@10"] == pytest.approx(results["test/files/nDCG@10"])
    assert (tmp_path / "eval" / "run.txt").read_text().split()[::6] == (out / "run.txt").read_text().split()[::6]


def test_without_judgments_the_verdict_reads_the_score_too(tmp_path, overrides):
    nothing = [f"{key}.{name}=null" for key in ("validation", "task") for name in ("run", "queries", "qrels")]
    results = run_train(tmp_path / "out", *overrides, *nothing, "train.max_steps=2", "train.patience=null")
    assert -1 <= results["agreement/student/tau"] <= 1


def test_one_step_changes_the_numbers_embeddings(tmp_path, overrides, counting):
    run_train(tmp_path / "out", *overrides, "train.max_steps=1", "optimizer.warmup=0", "optimizer.weight_decay=0")
    before, after = (load_file(path / "model.safetensors") for path in (counting, tmp_path / "out" / "model"))
    name = "embeddings.word_embeddings.weight"
    changed = (before[name] != after[f"bert.{name}"]).any(dim=1).nonzero().flatten().tolist()
    assert {token - FIRST for token in changed if token >= FIRST} <= set(place_numbers(10))
    assert max(changed) == FIRST + 100
