"""A score after an inner layer: learned beside the last one, saved beside the model, and lists pruned by it."""

import copy
import json
import os
import re
import signal
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer

import distill.models.cross_encoder
from distill.config.checks import check_evaluate, check_train
from distill.data.batch import take_pairs
from distill.errors import InputError
from distill.evaluation.cascade import joined
from distill.jobs import open_run
from distill.losses.objective import Objective
from distill.losses.pairwise import ranknet
from distill.models import pruned
from distill.models.cross_encoder import CrossEncoder
from distill.models.pruned import place_below, ranges, score_again
from distill.serving.scoring import Scorer
from distill.sources.run_files import RankedList
from distill.sources.runs import read_run
from distill.training.backward import backward
from distill.training.optim import make_optimizer
from distill.training.state import TrainingState
from tests.helpers.backbones import PACKED_FAMILIES, make_backbone
from tests.helpers.batches import random_batch
from tests.helpers.configuration import compose_config, resumed
from tests.helpers.serving import serving
from tests.helpers.training import run_train

LAYER, NUM_LAYERS = 2, 4
TOLERANCE = 1e-5  # of float32 scores


def deep_backbone(directory, family: str = "bert"):
    """The tiny encoder with four layers."""
    make_backbone(directory, family)
    config = AutoConfig.from_pretrained(directory)
    config.num_hidden_layers = NUM_LAYERS
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types * 2
    torch.manual_seed(0)
    model = AutoModel.from_config(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(directory)
    return directory


def make(directory, family: str = "bert", pooling: str = "cls", **options) -> CrossEncoder:
    options = {"exit_layer": LAYER, "dropout": 0.0} | options
    torch.manual_seed(0)
    directory = str(deep_backbone(directory, family))
    model = CrossEncoder.from_backbone(directory, pooling, query_length=8, passage_length=16, **options)
    for layer in (model.head, model.exit.linear if model.exit else model.head):
        nn.init.normal_(layer.weight)
    return model


def two_scores(model: CrossEncoder, directory, batch) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Full and exit scores of each list by transformers' own encoder, pair by pair, from all states that it returns."""
    encoder = AutoModel.from_pretrained(directory, dtype=model.head.weight.dtype).eval()
    scores, start = [], 0
    for length in batch.lengths.tolist():
        inputs = {"input_ids": batch.tokens[None, start : start + length]}
        if model.takes_token_types:
            inputs["token_type_ids"] = batch.token_types[None, start : start + length]
        with torch.no_grad():
            output = encoder(**inputs, output_hidden_states=True)
        both = []
        for states, head in ((output.last_hidden_state, model.head), (output.hidden_states[LAYER], model.exit.linear)):
            pooled = states[0, 0] if model.pooling == "cls" else states[0].mean(dim=0)
            both.append((pooled * head.weight[0]).sum() + head.bias[0])
        scores.append(torch.stack(both))
        start += length
    full, early = torch.stack(scores).detach().T
    sizes = batch.list_sizes.tolist()
    return list(full.split(sizes)), list(early.split(sizes))


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("family", PACKED_FAMILIES)
def test_kept_passages_have_their_full_score_and_others_are_placed_below(tmp_path, family, pooling, monkeypatch):
    monkeypatch.setattr(distill.models.cross_encoder, "MAX_CPU_TOKENS", 90)  # several chunks
    monkeypatch.setattr(pruned, "MAX_TOKENS_HELD", 150)  # and groups of lists
    batch, keep = random_batch(sizes=(9, 2, 12, 3)), 3
    for layout in ("packed", "padded"):
        model = make(tmp_path / layout, family, pooling, layout=layout).eval()
        full, early = two_scores(model, tmp_path / layout, batch)
        scores = model.score(batch, 90, keep)
        assert scores.dtype == torch.float64 and not scores[~batch.mask].any()
        for row, (expected, exits) in enumerate(zip(full, early, strict=True)):
            order = sorted(range(len(exits)), key=lambda i: -exits[i])
            kept, others = order[:keep], order[keep:]
            found = scores[row, : len(exits)]
            torch.testing.assert_close(found[kept].float(), expected[kept], rtol=0, atol=TOLERANCE)
            if others:
                assert found[others].tolist() == sorted(found[others].tolist(), reverse=True)
                assert found[others[0]] == pytest.approx(float(found[kept].min()) - 1, abs=1e-12)
                gaps = (exits[others[0]] - exits[others]).double()
                torch.testing.assert_close(found[others[0]] - found[others], gaps, rtol=0, atol=TOLERANCE)
        assert torch.equal(model.score(batch, 90, 12), model.score(batch, 90))  # no list is longer


def test_only_kept_passages_go_through_the_later_layers(tmp_path):
    model, batch = make(tmp_path).eval(), random_batch(sizes=(9, 12))
    tokens = {place: 0 for place in range(NUM_LAYERS)}

    def counting(place):
        def count(module, args, kwargs, output):
            tokens[place] += args[0].shape[1]

        return count

    for place, layer in enumerate(model.backbone.encoder.layer):
        layer.register_forward_hook(counting(place), with_kwargs=True)
    kept = model.score(batch, 1000, 3) > model.score(batch, 1000, 3).sort(descending=True).values[:, 3:4]
    tokens |= dict.fromkeys(tokens, 0)
    model.score(batch, 1000, 3)
    of_kept = int(batch.lengths[kept[batch.mask]].sum())
    assert tokens == {0: len(batch.tokens), 1: len(batch.tokens), 2: of_kept, 3: of_kept}


def test_equal_exit_scores_keep_the_earlier_passages(tmp_path):
    model = make(tmp_path).eval()
    nn.init.zeros_(model.exit.linear.weight)
    batch = random_batch(sizes=(6,))
    scores = model.score(batch, 1000, 2)[0]
    full = model.score(batch, 1000)[0].double()
    torch.testing.assert_close(scores[:2], full[:2], rtol=0, atol=TOLERANCE)
    assert set((scores[2:] - scores[:2].min()).tolist()) == {-1.0}


def test_an_exit_score_that_is_not_finite_is_refused(tmp_path):
    model = make(tmp_path).eval()
    nn.init.constant_(model.exit.linear.bias, -torch.inf)
    with pytest.raises(InputError, match="the model's score after layer 2 is -inf for a passage"):
        model.score(random_batch(sizes=(6,)), 1000, 2)


def test_others_are_placed_one_below_the_lowest_kept_and_keep_their_distances():
    assert place_below(np.array([5.0, 2.0]), np.array([7.0, 9.5, 7.5])).tolist() == [-1.5, 1.0, -1.0]
    assert place_below(np.array([5.0]), np.zeros(0)).tolist() == []
    assert ranges(torch.tensor([4, 0, 9]), torch.tensor([2, 0, 3])).tolist() == [4, 5, 9, 10, 11]


def test_a_cascade_by_hand():
    first, second = np.array([1.0, 4.0, 2.5, 3.0]), np.array([np.nan, 7.0, np.nan, 9.0])
    assert score_again(first, lambda best: second[best], keep=2).tolist() == [4.5, 7.0, 6.0, 9.0]


def test_equal_scores_of_a_cascade_tie():
    first = {"q": RankedList.by_score(list("abcd"), np.array([4.0, 3.0, 1.0, 1.0]))}
    both = joined(first, {"q": RankedList.by_score(list("ab"), np.array([1.0, 1.0]))})
    assert both["q"].doc_ids == list("abcd") and both["q"].ranks.tolist() == [1.5, 1.5, 3.5, 3.5]


def test_pairs_are_taken_out_of_a_batch():
    batch = random_batch(sizes=(3, 2))
    taken = take_pairs(batch, torch.tensor([False, True, True, False, False]))
    first, second, third = batch.lengths[:3].tolist()
    assert torch.equal(taken.tokens, batch.tokens[first : first + second + third])
    assert taken.lengths.tolist() == [second, third] and taken.list_sizes.tolist() == [2, 0]
    assert taken.mask.tolist() == [[True, True], [False, False]]


# ---- Training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_both_scores_learn_by_the_same_loss_in_one_pass_and_in_two(tmp_path, layout, monkeypatch):
    monkeypatch.setattr(distill.models.cross_encoder, "MAX_CPU_TOKENS", 60)
    batch, weight = random_batch(sizes=(9, 2, 13)), 0.5
    objective = Objective({"name": "ranknet", "target": "rank", "reduction": "mean"}, weight)
    assert objective.names == ["full", "exit"] and objective.weights(0, 10) == [1.0, 0.5]
    num_terms = objective.count_terms(batch.targets, batch.mask)
    found = []
    for max_tokens in (10**6, 60):
        model = make(tmp_path, "electra", layout=layout, dropout=0.2).double().train()
        torch.manual_seed(1)
        losses = backward(model, batch, objective, num_terms, objective.weights(0, 10), max_tokens)
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        found.append((losses, gradients, torch.rand(1)))
    (losses, one, after), (same, two, same_after) = found
    torch.testing.assert_close(losses, same, rtol=1e-12, atol=0)
    assert one.keys() == two.keys() and {"head.weight", "exit.linear.weight"} < one.keys() and after == same_after
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-9, atol=1e-12)

    model = make(tmp_path, "electra", layout=layout).double().train()  # without dropout, the loss is that of the scores
    losses = backward(model, batch, objective, num_terms, [1.0, weight], 60)
    full, early = (nn.utils.rnn.pad_sequence(some, True) for some in two_scores(model, tmp_path, batch))
    expected = [ranknet(scores, batch.targets["rank"], batch.mask, reduction="mean") for scores in (full, early)]
    torch.testing.assert_close(losses, torch.stack(expected).double(), rtol=1e-6, atol=0)


def test_a_mixture_has_both_scores_of_each_part():
    part = {"name": "ranknet", "target": "rank", "reduction": "sum"}
    loss = {"name": "mixture", "parts": {"a": part, "b": part}, "weights": {"a": 1, "b": [1, 0]}, "teachers": {}}
    objective = Objective(loss, 2.0)
    assert objective.names == ["a", "b", "exit/a", "exit/b"] and objective.weights(1, 3) == [1.0, 0.5, 2.0, 1.0]


def test_the_head_after_an_inner_layer_has_the_learning_rate_of_the_head(tmp_path):
    model = make(tmp_path)
    cfg = compose_config("train", "optimizer.head_lr=0.5").optimizer
    groups = make_optimizer(model, cfg).param_groups
    places = [group["lr_scale"] * cfg.lr for group in groups for p in group["params"] if p is model.exit.linear.weight]
    assert places == [pytest.approx(0.5)]


@pytest.mark.parametrize(
    "family, layer, reason",
    [
        ("deberta-v2", 1, "the layers of a deberta-v2 backbone cannot be run in two parts, only those of bert"),
        ("bert", 4, "model.exit_layer=4: this backbone has 4 layers: give 1 to 3"),
    ],
)
def test_a_layer_without_later_ones_or_of_another_architecture_is_refused(tmp_path, family, layer, reason):
    with pytest.raises(InputError, match=reason):
        make(tmp_path, family, exit_layer=layer)


# ---- Files -----------------------------------------------------------------------------------------------------------


def test_a_saved_model_has_its_exit_and_gives_other_libraries_the_full_score(tmp_path):
    model = make(tmp_path / "backbone").eval()
    model.save_pretrained(tmp_path / "model")
    settings = json.loads((tmp_path / "model" / "distill.json").read_text())
    assert settings["exit_layer"] == LAYER and "exit/model.safetensors" in settings["crc32"]
    opened = CrossEncoder.from_pretrained(str(tmp_path / "model"))
    batch = random_batch(sizes=(7,))
    assert torch.equal(opened.score(batch, 1000, 3), model.score(batch, 1000, 3))
    whole = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    query, passage = "a bee finds", "its home by the sun"
    with torch.no_grad():
        [[logit]] = whole(**tokenizer(query, passage, return_tensors="pt")).logits.tolist()
    assert logit == pytest.approx(model.predict((query, passage)), abs=1e-4)
    sentence_transformers = pytest.importorskip("sentence_transformers")
    theirs = sentence_transformers.CrossEncoder(str(tmp_path / "model"))
    assert theirs.predict([(query, passage)])[0] == pytest.approx(model.predict((query, passage)), abs=1e-5)
    (tmp_path / "model" / "exit" / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"exit/model.safetensors: differs from its checksum"):
        CrossEncoder.from_pretrained(str(tmp_path / "model"))


def test_training_goes_on_with_the_exit_of_a_directory_unless_another_is_asked_for(tmp_path, caplog):
    model = make(tmp_path / "backbone")
    model.save_pretrained(tmp_path / "model")
    start = partial(CrossEncoder.from_backbone, str(tmp_path / "model"), query_length=8, passage_length=16)
    same = start(exit_layer=LAYER)
    assert torch.equal(same.exit.linear.weight, model.exit.linear.weight)
    other = start(exit_layer=1)
    assert other.exit.layer == 1 and not torch.equal(other.exit.linear.weight, model.exit.linear.weight)
    assert "its score after layer 2 is dropped; model.exit_layer=2 keeps it" in caplog.text
    assert start().exit is None


def test_an_exit_above_the_layers_that_are_kept_is_dropped(tmp_path, caplog):
    make(tmp_path / "backbone", head="native").save_pretrained(tmp_path / "model")
    start = partial(CrossEncoder.from_backbone, str(tmp_path / "model"), query_length=8, passage_length=16)
    assert start(num_layers=LAYER).exit is None and "its score after layer 2 is dropped" in caplog.text
    with pytest.raises(InputError, match="model.exit_layer=2: this backbone has 2 layers: give 1 to 1"):
        start(num_layers=LAYER, exit_layer=LAYER)


# ---- Ranking ---------------------------------------------------------------------------------------------------------


def test_rank_prunes_each_list(tmp_path, monkeypatch):
    model = make(tmp_path).eval()
    passages = ["a bee finds its home", "trains follow rails of iron", "by the sun", "snow", "and so does an ant"]
    order, scores = model.rank("a bee", passages, exit_keep=2)
    full = dict(zip(*model.rank("a bee", passages), strict=True))
    assert sorted(order) == [0, 1, 2, 3, 4] and scores == sorted(scores, reverse=True)
    assert scores[:2] == pytest.approx([full[order[0]], full[order[1]]], abs=TOLERANCE)
    assert scores[2] == pytest.approx(scores[1] - 1)
    monkeypatch.setattr(pruned, "MAX_TOKENS_HELD", 1)  # each list by itself
    queries, lists = ["a bee", "sun", "snow"], [passages, [], passages[:2]]
    [(first, _), empty, (_, short)] = model.rank(queries, lists, exit_keep=2)
    assert (
        first == order
        and empty == ([], [])
        and short == pytest.approx(model.rank("snow", passages[:2])[1], abs=TOLERANCE)
    )
    again, exact = copy.deepcopy(model).double().rank("a bee", passages, exit_keep=2)
    assert again == order and exact == pytest.approx(scores, abs=TOLERANCE) and exact != scores
    model.activation = nn.Sigmoid()  # the order stays, and all scores are within its range
    bent, values = model.rank("a bee", passages, exit_keep=2)
    assert bent == order and values == pytest.approx([1 / (1 + np.exp(-score)) for score in scores], abs=1e-6)
    with pytest.raises(InputError, match="exit_keep=0: must be at least 1"):
        model.rank("a bee", passages, exit_keep=0)
    model.exit = None
    with pytest.raises(InputError, match="exit_keep=2: this model has no score after an inner layer"):
        model.rank("a bee", passages, exit_keep=2)


# ---- Commands --------------------------------------------------------------------------------------------------------

SHORT = ["train.max_steps=4", "train.validate_every=2", "train.log_every=2", "train.save_every=2"]


def rows_of(directory) -> list[dict]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def test_a_training_logs_both_losses_saves_its_exit_and_resumes_exactly(file_overrides, tmp_path, monkeypatch):
    options = [*file_overrides, *SHORT, "model.exit_layer=1", "model.exit_weight=0.5"]
    run_train(tmp_path / "run", *options)
    rows = [row for row in rows_of(tmp_path / "run") if "train/loss" in row]
    for row in rows:
        parts = row["train/loss/full"] + 0.5 * row["train/loss/exit"]
        assert row["train/loss"] == pytest.approx(parts, rel=1e-6)

    model = CrossEncoder.from_pretrained(str(tmp_path / "run" / "model"))
    assert model.exit.layer == 1
    stop_after(monkeypatch, step=2)
    with pytest.raises(SystemExit):
        run_train(tmp_path / "stopped", *options)
    monkeypatch.undo()
    run_train(tmp_path / "stopped", *options, f"resume={tmp_path / 'stopped'}")
    again = [row for row in rows_of(tmp_path / "stopped") if "train/loss" in row]
    assert [row["train/loss/exit"] for row in again] == [row["train/loss/exit"] for row in rows]
    files = [tmp_path / name / "model" / "exit" / "model.safetensors" for name in ("run", "stopped")]
    assert files[0].read_bytes() == files[1].read_bytes()


def stop_after(monkeypatch, step: int) -> None:
    """Let SIGTERM arrive once a step is done."""
    note = TrainingState.note

    def noting(self, *arguments):
        note(self, *arguments)
        if self.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(TrainingState, "note", noting)


def evaluated(directory, *overrides: str) -> dict[str, float]:
    from evaluate import evaluate

    directory.mkdir()
    return evaluate(compose_config("evaluate", "task=files", *overrides), directory)


@pytest.fixture
def task(collection) -> list[str]:
    named = [f"task.{name}={collection[name]}" for name in ("passages", "queries", "qrels")]
    return [*named, f"task.run={collection['first_stage']}", "task.measures=[nDCG@5]"]


def test_an_evaluation_prunes_each_list_and_says_so(tmp_path, task, collection, backbone):
    torch.manual_seed(0)
    model = CrossEncoder.from_backbone(str(backbone), query_length=8, passage_length=16, exit_layer=1)
    nn.init.normal_(model.head.weight)
    nn.init.normal_(model.exit.linear.weight)
    model.save_pretrained(tmp_path / "model")
    whole = evaluated(tmp_path / "whole", f"model={tmp_path / 'model'}", *task)
    results = evaluated(tmp_path / "pruned", f"model={tmp_path / 'model'}", "exit_keep=4", *task)
    assert results["exit/keep"] == 4 and "exit/keep" not in whole
    full, runs = (read_run(str(tmp_path / name / "run.txt")) for name in ("whole", "pruned"))
    assert " model-exit-4\n" in (tmp_path / "pruned" / "run.txt").read_text()
    texts = {name: read_texts(collection[name]) for name in ("passages", "queries")}
    for query_id, ranked in runs.items():
        first = read_run(str(collection["first_stage"]))[query_id].doc_ids
        found = model.rank(texts["queries"][query_id], [texts["passages"][d] for d in first], exit_keep=4)
        assert ranked.doc_ids == [first[place] for place in found[0]]
        score_of = dict(zip(full[query_id].doc_ids, full[query_id].scores, strict=True))
        assert ranked.scores[:4] == pytest.approx([score_of[doc_id] for doc_id in ranked.doc_ids[:4]], abs=TOLERANCE)
        assert (np.diff(ranked.scores) <= 0).all() and ranked.scores[4] == pytest.approx(ranked.scores[3] - 1)
    with pytest.raises(InputError, match="exit_keep=4: this model has no score after an inner layer"):
        evaluated(tmp_path / "none", f"model={plain_model(tmp_path / 'plain', backbone)}", "exit_keep=4", *task)


def read_texts(path) -> dict[str, str]:
    return dict(line.split("\t", 1) for line in path.read_text().splitlines())


def plain_model(directory, backbone, seed: int = 1) -> str:
    torch.manual_seed(seed)
    model = CrossEncoder.from_backbone(str(backbone), query_length=8, passage_length=12)
    nn.init.normal_(model.head.weight)
    model.save_pretrained(directory)
    return str(directory)


def test_a_cascade_scores_the_best_of_the_first_model_again(tmp_path, task, backbone):
    small, large = (plain_model(tmp_path / name, backbone, seed) for seed, name in enumerate(("small", "large")))
    for name, model in (("A", small), ("B", large)):
        evaluated(tmp_path / name, f"model={model}", *task)
    options = [f"cascade.model={large}", "cascade.keep=3", "latency_queries=1"]
    results = evaluated(tmp_path / "both", f"model={small}", *options, *task)
    assert results["cascade/keep"] == 3 and results["latency/files/seconds_per_query"] > 0
    first, second, both = (read_run(str(tmp_path / name / "run.txt")) for name in ("A", "B", "both"))
    assert " small-then-large-3\n" in (tmp_path / "both" / "run.txt").read_text()
    for query_id, ranked in both.items():
        by_large = dict(zip(second[query_id].doc_ids, second[query_id].scores, strict=True))
        best = sorted(first[query_id].doc_ids[:3], key=lambda doc_id: -by_large[doc_id])
        assert ranked.doc_ids == best + first[query_id].doc_ids[3:]
        assert ranked.scores[:3] == pytest.approx([by_large[doc_id] for doc_id in best], abs=TOLERANCE)
        others = first[query_id].scores[3:]
        assert ranked.scores[3:] == pytest.approx(ranked.scores[2] - 1 - (others[0] - others), abs=1e-9)
    saved = resumed(tmp_path / "both", "cascade.keep=4", name="evaluate")
    (tmp_path / "both" / "results.json").unlink()
    with pytest.raises(InputError, match="cascade.keep: 3 -> 4"), open_run(saved, tmp_path / "both"):
        pass


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["exit_keep=4", "task.windows=2"], "exit_keep=4 with task.windows=2: passages of several windows cannot be"),
        (["cascade.keep=4"], "cascade.keep=4 with cascade.model=null: it scores the best passages again: give it"),
        (["cascade.model=DIR"], "cascade.model=DIR with cascade.keep=null: it scores the best passages of each list"),
        (["cascade.model=DIR", "cascade.keep=3", "task.interpolate=auto"], "for its own scores, not for those of a"),
        (["cascade.model=DIR", "cascade.keep=3", "model=null"], "cascade.model=DIR needs model, which scores all"),
        (["exit_keep=4", "model=null"], "exit_keep=4 with model=null"),
    ],
)
def test_what_cannot_be_pruned_is_refused(task, overrides, message):
    with pytest.raises(InputError, match=re.escape(message)):
        check_evaluate(compose_config("evaluate", "task=files", "model=DIR", *task, *overrides))


def test_adapters_have_no_place_for_an_exit(file_overrides):
    options = ["model.exit_layer=1", "model.lora.rank=2", "model.lora.save=adapters"]
    with pytest.raises(InputError, match="model.exit_layer=1: model.lora.save=adapters has no place for that score"):
        check_train(compose_config("train", *file_overrides, *options))


def test_a_server_prunes_lists_and_scores_pairs_in_full(tmp_path):
    model = make(tmp_path).eval()
    query, passages = (
        "a bee",
        ["by the sun", "snow", "a bee finds its home", "trains follow rails"],
    )  # no order of lengths
    order, scores = model.rank(query, passages, exit_keep=2)
    with serving(Scorer(model, 16384, torch.float32, exit_keep=2)) as client:
        asked = {"query": query, "texts": passages, "raw_scores": True}
        answer = client.post("/rerank", json=asked).json()
        assert [one["index"] for one in answer] == order
        assert [one["score"] for one in answer] == pytest.approx(scores, abs=TOLERANCE)
        pairs = {"text_1": query, "text_2": passages, "use_activation": False}
        data = client.post("/score", json=pairs).json()["data"]
        full = model.predict([(query, passage) for passage in passages])
        assert [one["score"] for one in data] == pytest.approx(full.tolist(), abs=TOLERANCE)
        assert client.get("/info").json()["exit_keep"] == 2


def test_a_server_scores_the_best_of_a_cascades_first_model_again(tmp_path):
    small, large = (make(tmp_path / family, family).eval() for family in ("bert", "electra"))
    query, passages = (
        "a bee",
        ["by the sun", "snow", "a bee finds its home", "trains follow rails"],
    )  # no order of lengths
    order, first = small.rank(query, passages)
    full = large.predict([(query, passage) for passage in passages])
    best = sorted(order[:2], key=lambda index: -full[index])
    with serving(Scorer(large, 16384, torch.float32, first=small, keep=2)) as client:
        answer = client.post("/rerank", json={"query": query, "texts": passages, "raw_scores": True}).json()
        read = [*small.encode([query] * 4, passages), *large.encode([query] * 2, [passages[one] for one in best])]
        num_tokens = sum(len(tokens) for tokens, _ in read)
        counted = client.get("/metrics").text
        assert "distill_passages_total 6.0" in counted and f"distill_tokens_total {num_tokens}.0" in counted
        documents = client.post("/v2/rerank", json={"query": query, "documents": passages}).json()
        assert documents["usage"] == {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
        assert documents["meta"]["tokens"] == {"input_tokens": num_tokens}
        assert [one["index"] for one in answer] == best + order[2:]
        low = min(full[best]) - 1
        expected = [*full[best], low, low - (first[2] - first[3])]
        assert [one["score"] for one in answer] == pytest.approx(expected, abs=TOLERANCE)
        pairs = {"text_1": query, "text_2": passages, "use_activation": False}
        data = client.post("/score", json=pairs).json()["data"]
        assert [one["score"] for one in data] == pytest.approx(full.tolist(), abs=TOLERANCE)
        refused = client.post("/rerank", json={"query": query, "texts": ["snow " * 17], "truncate": False})
        assert refused.status_code == 422
