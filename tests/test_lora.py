"""LoRA, frozen weights and gradient checkpointing: what is trained, what stays as it was, and what is saved."""

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from transformers import AutoConfig, AutoModel

from distill.config.overrides import quoted
from distill.config.rules import check_rules
from distill.errors import InputError
from distill.losses.objective import Objective
from distill.models.adapters import train_adapters
from distill.models.cross_encoder import CrossEncoder
from distill.models.freezing import freeze
from distill.models.lora import add_adapters, linear_layers, merge, merged
from distill.serving.scoring import load_scorer
from distill.sources.runs import read_run
from distill.sources.texts import read_passages, read_queries
from distill.teachers.ensemble import models_of, score_lists
from distill.training.backward import backward
from distill.training.optim import make_optimizer
from distill.training.recompute import recompute_activations
from tests.helpers.backbones import FAMILIES, make_backbone
from tests.helpers.batches import ragged_batch
from tests.helpers.configuration import compose_config
from tests.helpers.serving import settings
from tests.helpers.training import run_train

LENGTHS, SIZES = [9, 4, 30, 9, 17, 5], [3, 2, 1]


def make(directory, family: str = "bert", **options) -> CrossEncoder:
    make_backbone(directory, family)
    torch.manual_seed(0)
    model = CrossEncoder.from_backbone(str(directory), query_length=8, passage_length=40, **options)
    nn.init.normal_(model.head.weight)
    return model


def adapted(directory, family: str = "bert", targets=None, **options) -> CrossEncoder:
    """A model whose adapters are no longer zero."""
    model = make(directory, family, **options)
    add_adapters(model, rank=4, alpha=8.0, dropout=0.0, targets=targets)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.2)
    return model


def scores(model: CrossEncoder) -> torch.Tensor:
    batch = ragged_batch(LENGTHS, SIZES)
    with torch.no_grad():
        return model.eval().score(batch, 1000)[batch.mask]


# ---- Gradient checkpointing ------------------------------------------------------------------------------------------


def step(model: CrossEncoder, max_tokens: int) -> tuple[list[torch.Tensor], torch.Tensor, int]:
    """Gradients of a step, the next number that dropout would draw, and the bytes kept for the backward pass."""
    batch = ragged_batch(LENGTHS, SIZES)
    batch.targets = {"rank": torch.tensor([[2.0, 1.0, 3.0], [1.0, 2.0, 0.0], [1.0, 0.0, 0.0]])}
    objective = Objective({"name": "ranknet", "target": "rank", "reduction": "sum"})
    kept = 0

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    torch.manual_seed(1)
    model.train().zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        backward(model, batch, objective, torch.tensor([4]), [1.0], max_tokens)
    return [p.grad for p in model.parameters() if p.grad is not None], torch.rand(1), kept


STEPS = [(family, layout, 1000) for family in FAMILIES for layout in ("packed", "padded")]  # in one pass
STEPS.remove(("deberta-v2", "packed", 1000))
STEPS += [("electra", "packed", 30), ("modernbert", "padded", 30)]  # in two


def test_an_albert_has_adapters_in_its_layer_only():
    sizes = {"embedding_size": 4, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8}
    names = linear_layers(AutoModel.from_config(AutoConfig.for_model("albert", vocab_size=9, **sizes)))
    assert names and all(name.startswith("encoder.albert_layer_groups.") for name in names)


@pytest.mark.parametrize("family, layout, max_tokens", STEPS)
def test_checkpointing_changes_no_gradient_and_no_dropout(tmp_path, family, layout, max_tokens):
    model = make(tmp_path, family, layout=layout, dropout=0.2)
    expected, drawn, _ = step(model, max_tokens)
    recompute_activations(model.backbone)
    found, drawn_now, _ = step(model, max_tokens)
    assert len(found) == len(expected) and drawn_now == drawn
    assert all(torch.equal(now, before) for now, before in zip(found, expected, strict=True))


def test_checkpointing_keeps_fewer_activations(tmp_path):
    model = make(tmp_path, "modernbert", dropout=0.2)
    *_, before = step(model, 1000)
    recompute_activations(model.backbone)
    *_, now = step(model, 1000)
    assert now < 0.25 * before


def test_checkpointing_is_refused_where_transformers_has_none(tmp_path):
    model = make(tmp_path)
    model.backbone.supports_gradient_checkpointing = False
    with pytest.raises(InputError, match="train.checkpointing=true: transformers cannot checkpoint a bert backbone"):
        recompute_activations(model.backbone)


# ---- Frozen weights --------------------------------------------------------------------------------------------------


def test_frozen_layers_and_embeddings_keep_every_bit_and_the_rest_is_trained(tmp_path):
    model = make(tmp_path, dropout=0.0)
    freeze(model, embeddings=True, layers=1)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    step(model, 1000)
    optimizer = make_optimizer(model, compose_config("train", "optimizer.lr=0.01").optimizer)
    optimizer.step()
    frozen = ("embeddings.word", "embeddings.position", "embeddings.token_type", "encoder.layer.0.", "pooler.")
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == any(part in name for part in frozen), name


@pytest.mark.parametrize("layers, message", [(3, "this backbone has 2 layers"), (1, "share their weights")])
def test_layers_that_cannot_be_frozen_are_refused(tmp_path, layers, message):
    model = make(tmp_path)
    if layers == 1:
        model.backbone.config.num_hidden_layers = 5  # as ALBERT's
    with pytest.raises(InputError, match=f"model.freeze.layers={layers}: .*{message}"):
        freeze(model, layers=layers)


# ---- LoRA ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["electra", "modernbert", "deberta-v2"])
def test_merged_adapters_give_the_scores_of_adapters_and_of_the_formula(tmp_path, family):
    model = adapted(tmp_path, family)
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    expected = scores(model)
    plain = make(tmp_path, family)
    with torch.no_grad():
        for name, weight in plain.named_parameters():
            layer = name.removesuffix(".weight")
            if f"{layer}.lora_A.default.weight" in weights:
                a, b = (weights[f"{layer}.lora_{part}.default.weight"].double() for part in "AB")
                weight.copy_(weight.double() + 8.0 / 4 * b @ a)
    assert (scores(make(tmp_path, family)) - expected).abs().max() > 0.01
    torch.testing.assert_close(expected, scores(plain), rtol=1e-5, atol=1e-5)
    with merged(model.backbone):
        torch.testing.assert_close(scores(model), expected, rtol=1e-5, atol=1e-5)
        assert model.state_dict().keys() == plain.state_dict().keys()
    now = model.state_dict()
    assert now.keys() == weights.keys() and all(torch.equal(now[name], weights[name]) for name in weights)
    model.save_pretrained(tmp_path / "saved")
    merge(model.backbone)
    assert model.state_dict().keys() == plain.state_dict().keys()
    saved = CrossEncoder.from_pretrained(str(tmp_path / "saved"))
    assert torch.equal(scores(saved), scores(model))


def test_only_adapters_and_head_are_trained(tmp_path):
    model = adapted(tmp_path)
    assert model.is_partly_frozen and "0.00 million are trained" in model.describe()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name for name in trained if "lora_" not in name} == {"head.weight", "head.bias"}
    layers = linear_layers(make(tmp_path).backbone)
    assert len(trained) == 2 + 2 * len(layers) and len(layers) == 2 * 6
    step(model, 1000)
    assert all((parameter.grad is not None) == (name in trained) for name, parameter in model.named_parameters())
    optimizer = make_optimizer(model, compose_config("train", "optimizer.head_lr=0.5").optimizer)
    scales = [(group["lr_scale"], len(group["params"])) for group in optimizer.param_groups]
    assert scales == [(1.0, 24), (1.0, 0), (0.5 / optimizer.defaults["lr"], 1), (0.5 / optimizer.defaults["lr"], 1)]


def test_targets_are_ends_of_names(tmp_path):
    backbone = make(tmp_path).backbone
    assert linear_layers(backbone, ["query"]) == [f"encoder.layer.{n}.attention.self.query" for n in range(2)]
    assert len(linear_layers(backbone, ["output.dense", "value"])) == 6
    assert not [name for name in linear_layers(backbone) if "pooler" in name]
    with pytest.raises(InputError, match="names q_proj, but the linear layers .* are dense, key, query, value: choose"):
        linear_layers(backbone, ["query", "q_proj"])


def test_a_missing_peft_is_named_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(InputError, match="model.lora.rank=4 needs peft: install it with: pip install peft"):
        add_adapters(make(tmp_path), rank=4, alpha=8.0, dropout=0.0)


FROZEN = {
    "lora": ["model.lora.rank=4", "optimizer.head_lr=1e-2", "model.dropout=0.1"],
    "adapters": ["model.lora.rank=4", "model.lora.save=adapters"],
    "freeze": ["model.freeze.layers=1", "model.freeze.embeddings=true"],
}


@pytest.mark.parametrize("kind", FROZEN)
def test_a_run_with_frozen_weights_is_resumed_bit_for_bit_from_small_checkpoints(tmp_path, file_overrides, kind):
    overrides = [*file_overrides, *FROZEN[kind], "train.max_steps=4", "train.checkpointing=true", "task.run=null"]
    whole = run_train(tmp_path / "whole", *overrides)
    run_train(tmp_path / "part", *overrides, "train.max_steps=2")
    resumed = run_train(tmp_path / "part", *overrides, f"resume={tmp_path / 'part'}")
    for results in (resumed, whole):
        del results["train/seconds"], results["memory/train/peak_bytes"]
    assert resumed == whole
    last = [torch.load(tmp_path / run / "checkpoints" / "last.pt") for run in ("whole", "part")]
    assert last[0]["model"].keys() == last[1]["model"].keys()
    assert all(torch.equal(last[0]["model"][name], last[1]["model"][name]) for name in last[0]["model"])
    name = next(one.partition("=")[2] for one in file_overrides if one.startswith("backbone.name="))
    directories = [str(tmp_path / run / "model") for run in ("whole", "part")]
    base = name if kind == "adapters" else None
    card = (tmp_path / "part" / "model" / "README.md").read_text()
    assert ('CrossEncoder.from_pretrained("MODEL", base="BACKBONE")' in card) == (kind == "adapters")
    assert ("library_name: peft" in card) == (kind == "adapters") and "cls pooling, one linear layer |" in card
    trained = "all but the embeddings and the first layer" if kind == "freeze" else "LoRA of rank 4 and alpha "
    assert f"| Trained | {trained}" in card
    models = [CrossEncoder.from_pretrained(directory, base=base).state_dict() for directory in directories]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
    before = AutoModel.from_pretrained(name).state_dict()
    frozen = [name for name in before if "embeddings.word" in name or (kind != "freeze" and "LayerNorm" in name)]
    assert frozen and all(torch.equal(before[name], models[0][f"backbone.{name}"]) for name in frozen)
    assert not [key for key in last[0]["model"] if "word_embeddings" in key or "base_layer" in key]


def test_adapters_of_a_finished_run_open_after_it_is_resumed(tmp_path, file_overrides):
    overrides = [*file_overrides, *FROZEN["adapters"], "train.max_steps=2", "task.run=null"]
    run_train(tmp_path / "run", *overrides)
    run_train(tmp_path / "run", *overrides, f"resume={tmp_path / 'run'}")  # validates no better, and saves no model
    name = next(one.partition("=")[2] for one in file_overrides if one.startswith("backbone.name="))
    CrossEncoder.from_pretrained(str(tmp_path / "run" / "model"), base=name)


def test_a_checkpoint_of_frozen_weights_is_refused_with_another_backbone(tmp_path, file_overrides):
    overrides = [*file_overrides, *FROZEN["freeze"]]
    run_train(tmp_path / "run", *overrides, "train.max_steps=2")
    other = make_backbone(tmp_path / "other", seed=1)
    with pytest.raises(InputError, match="the frozen weights of this run's backbone differ"):
        run_train(tmp_path / "run", *overrides, f"resume={tmp_path / 'run'}", f"backbone.name={other}")


def test_freezing_beside_lora_is_refused(file_overrides, tmp_path):
    from distill.config.checks import check_train

    cfg = compose_config("train", *file_overrides, "model.lora.rank=4", "model.freeze.layers=1")
    with pytest.raises(InputError, match="model.freeze.layers=1: model.lora.rank freezes the whole backbone"):
        check_train(cfg)


# ---- Adapters without their backbone ---------------------------------------------------------------------------------


@pytest.mark.parametrize("family, head", [("bert", "linear"), ("bert", "native"), ("modernbert", "mlp")])
def test_adapters_are_saved_with_the_head_and_opened_with_their_backbone(tmp_path, family, head):
    model = make(tmp_path / "base", family, head=head)
    train_adapters(model, rank=4, alpha=8.0, dropout=0.1, save="adapters")
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.2)
    expected = scores(model)
    model.save_pretrained(tmp_path / "saved")
    assert sum(path.stat().st_size for path in (tmp_path / "saved").glob("*.safetensors")) < 60_000
    again = CrossEncoder.from_pretrained(str(tmp_path / "saved"), base=str(tmp_path / "base"))
    torch.testing.assert_close(scores(again), expected, rtol=1e-5, atol=1e-5)
    again.save_pretrained(tmp_path / "whole")
    assert torch.equal(scores(CrossEncoder.from_pretrained(str(tmp_path / "whole"))), scores(again))
    # peft opens them, too
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    auto, options = (AutoModelForSequenceClassification, {"num_labels": 1}) if head == "native" else (AutoModel, {})
    theirs = PeftModel.from_pretrained(auto.from_pretrained(tmp_path / "base", **options), tmp_path / "saved").eval()
    batch = ragged_batch(LENGTHS, SIZES)
    ids, types = batch.tokens[None, : LENGTHS[0]], batch.token_types[None, : LENGTHS[0]]
    inputs = {"input_ids": ids, **({"token_type_ids": types} if model.takes_token_types else {})}
    with torch.no_grad():
        if head == "native":
            score = theirs(**inputs).logits[0, 0]
        else:
            score = again.head(again.projection(theirs(**inputs).last_hidden_state[0, 0]))[0]
    torch.testing.assert_close(score, expected[0], rtol=1e-5, atol=1e-5)


def test_adapters_are_refused_without_their_backbone_and_with_another(tmp_path):
    model = make(tmp_path / "base")
    train_adapters(model, rank=4, alpha=8.0, dropout=0.1, save="adapters")
    model.save_pretrained(tmp_path / "saved")
    saved = str(tmp_path / "saved")
    with pytest.raises(InputError, match=f"not the weights of their backbone: give that, as in base={tmp_path}"):
        CrossEncoder.from_pretrained(saved)
    with pytest.raises(InputError, match="holds adapters, not a whole model: distill export model=.* base=BACKBONE"):
        CrossEncoder.from_backbone(saved)
    other = make_backbone(tmp_path / "other", seed=1)
    with pytest.raises(InputError, match="its weights are not those that .*saved was trained with"):
        CrossEncoder.from_pretrained(saved, base=str(other))
    whole = make(tmp_path / "base")
    whole.save_pretrained(tmp_path / "whole")
    with pytest.raises(InputError, match="whole holds no adapters, but a whole model: leave it out"):
        CrossEncoder.from_pretrained(str(tmp_path / "whole"), base=str(other))


@pytest.fixture
def with_backbone(tmp_path):
    """Adapters, their backbone, and the model that they make."""
    model = make(tmp_path / "base")
    train_adapters(model, rank=4, alpha=8.0, dropout=0.1, save="adapters")
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(tmp_path / "saved")
    return str(tmp_path / "saved"), str(tmp_path / "base"), model.eval()


def test_adapters_are_served_and_teach_with_their_backbone(with_backbone, collection):
    saved, base, model = with_backbone
    scorer = load_scorer(settings(model=saved, base=base))
    query, passages = "a bee", ["a bee and an ant", "the sun"]
    [found] = scorer.score([model.encode([query, query], passages)])
    assert found == pytest.approx(model.predict([(query, passage) for passage in passages]), abs=1e-5)
    run = {"q0": read_run(str(collection["first_stage"]))["q0"].cut(5)}
    queries, passages = read_queries(str(collection["queries"])), read_passages(str(collection["passages"]), None)
    names = ["passages=p", "queries=q", "run=r", "llm@teacher.llm=cross-encoder", f"teacher.llm.model={saved}"]
    ranking, _ = score_lists(run, queries, passages, compose_config("annotate", *names, f"teacher.llm.base={base}"))
    order, values = model.rank(queries["q0"], [passages[doc_id] for doc_id in run["q0"].doc_ids])
    assert ranking["q0"].doc_ids == [run["q0"].doc_ids[place] for place in order]
    assert ranking["q0"].scores == pytest.approx(values, abs=1e-5)
    with pytest.raises(InputError, match="not the weights of their backbone: give that, as in base="):
        score_lists(run, queries, passages, compose_config("annotate", *names))


def test_adapters_rerank_in_pyterrier_with_their_backbone(with_backbone):
    pytest.importorskip("pyterrier", reason="python-terrier is not installed")
    from distill.pyterrier import Reranker

    saved, base, model = with_backbone
    opened = Reranker(saved, device="cpu", base=base).model
    torch.testing.assert_close(scores(opened), scores(model), rtol=1e-5, atol=1e-5)


def test_each_of_several_teachers_has_its_backbone():
    def given(base: str | None):
        return models_of(OmegaConf.create({"model": "A, B", "base": base}))

    assert given(None) == (["A", "B"], [None, None]) and given("C") == (["A", "B"], ["C", "C"])
    assert given("C,D") == (["A", "B"], ["C", "D"]) and given(",D") == (["A", "B"], [None, "D"])
    with pytest.raises(
        InputError, match="teacher.llm.base=C,D,E: names 3 backbones for 2 models: give one for all, or"
    ):
        given("C,D,E")
    assert quoted("teacher.llm.base=C,D") == "teacher.llm.base='C,D'"
    cfg = compose_config("annotate", "passages=p", "queries=q", "run=r", "teacher.llm.model=A", "teacher.llm.base=C")
    with pytest.raises(InputError, match="teacher.llm.base=C and teacher.llm.engine=http: only cross-encoders have ad"):
        check_rules(cfg)


@pytest.mark.parametrize("options, message", [
    (["model.lora.save=adapters"], "model.lora.save=adapters needs model.lora.rank"),
    (["model.lora.save=adapters", "model.lora.rank=4", "backbone.weights=random"], "random weights could not be had"),
])  # fmt: skip
def test_adapters_that_could_not_be_opened_again_are_refused(file_overrides, options, message):
    from distill.config.checks import check_train

    with pytest.raises(InputError, match=message):
        check_train(compose_config("train", *file_overrides, *options))
