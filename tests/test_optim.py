"""The learning rate over the steps: a warm-up in steps or as a share of them, and what takes up the whole run."""

import copy
import math
import re

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModel

from distill.config.checks import check_train
from distill.config.command import refuse_renamed
from distill.errors import InputError
from distill.training.muon import Muon, orthogonalised
from distill.training.optim import (
    gradient_metrics,
    layer_depths,
    lr_factor,
    make_optimizer,
    set_lr,
    warmup_steps,
    warn_of_warmup,
)
from tests.helpers.configuration import compose_config


@pytest.mark.parametrize(
    ("warmup", "num_steps", "steps"),
    [(0.1, 15, 2), (0.1, 30, 3), (0.1, 4, 0), (0.5, 7, 4), (0, 80, 0), (1, 80, 1), (20, 80, 20), (100, 15, 100)],
)
def test_below_1_a_warmup_is_a_share_of_the_steps(warmup, num_steps, steps):
    assert warmup_steps(warmup, num_steps) == steps


def test_the_learning_rate_rises_over_the_warmup_and_then_falls_to_0():
    factors = [lr_factor("linear", step, 2, 6) for step in range(6)]
    assert factors == [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]


class _Scorer(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone, self.head = nn.Linear(3, 2), nn.Linear(2, 1)


def test_the_head_follows_the_schedule_up_to_its_own_peak():
    cfg = compose_config("train", "optimizer.lr=1e-4", "optimizer.head_lr=1e-2", "optimizer.warmup=2").optimizer
    model = _Scorer()
    optimizer = make_optimizer(model, cfg)
    for step, factor in enumerate([0.5, 1.0, 1.0, 0.75, 0.5, 0.25]):
        assert set_lr(optimizer, cfg, step, 6) == pytest.approx(1e-4 * factor)
        peak = {id(each): group["lr"] for group in optimizer.param_groups for each in group["params"]}
        assert [peak[id(each)] for each in model.backbone.parameters()] == pytest.approx([1e-4 * factor] * 2)
        assert [peak[id(each)] for each in model.head.parameters()] == pytest.approx([1e-2 * factor] * 2)
    decay = {id(each): group["weight_decay"] for group in optimizer.param_groups for each in group["params"]}
    assert [decay[id(each)] for each in model.parameters()] == [0.01, 0, 0.01, 0]


def test_without_a_rate_of_its_own_the_head_learns_like_the_rest():
    cfg = compose_config("train", "optimizer.lr=1e-4").optimizer
    model = _Scorer()
    torch.manual_seed(0)
    ours, plain = make_optimizer(model, cfg), torch.optim.AdamW(model.parameters(), lr=1e-4)
    assert len(ours.param_groups) == 2  # as in checkpoints from before the key
    set_lr(ours, cfg, 20, 100)
    assert {group["lr"] for group in ours.param_groups} == {1e-4} == {group["lr"] for group in plain.param_groups}


@pytest.mark.parametrize("head_lr, head_scale", [("null", 1.0), ("1e-2", 100.0)])
def test_each_layer_learns_slower_than_the_one_above_it(head_lr, head_scale):
    overrides = ["optimizer.lr=1e-4", "optimizer.layer_decay=0.5", f"optimizer.head_lr={head_lr}", "optimizer.warmup=0"]
    cfg, sizes = compose_config("train", *overrides).optimizer, {"hidden_size": 4, "num_attention_heads": 2}
    model = nn.Module()
    config = AutoConfig.for_model("electra", vocab_size=9, num_hidden_layers=2, embedding_size=3, **sizes)
    model.backbone, model.head = AutoModel.from_config(config), nn.Linear(4, 1)
    optimizer = make_optimizer(model, cfg)
    set_lr(optimizer, cfg, 0, 10)
    rates = {id(each): group["lr"] for group in optimizer.param_groups for each in group["params"]}
    decay = {id(each): group["weight_decay"] for group in optimizer.param_groups for each in group["params"]}
    expected = {"backbone.embeddings": 0.125, "backbone.encoder.layer.0.": 0.25, "backbone.encoder.layer.1.": 0.5}
    expected |= {"head.": head_scale}
    for name, parameter in model.named_parameters():
        [scale] = [scale for prefix, scale in expected.items() if name.startswith(prefix)]
        assert rates[id(parameter)] == pytest.approx(1e-4 * scale), name
        assert decay[id(parameter)] == (0.01 if parameter.dim() > 1 else 0)
    assert len(rates) == len([*model.parameters()])


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert", "deberta-v2", "distilbert", "llama"])
def test_every_family_has_embeddings_layers_and_a_top(family):
    sizes = {"vocab_size": 9, "hidden_size": 4, "num_attention_heads": 2, "num_key_value_heads": 2, "pad_token_id": 0}
    sizes |= {"intermediate_size": 4, "num_hidden_layers": 3} | dict.fromkeys(("dim", "hidden_dim"), 4)
    sizes = {"n_layers": 3, "n_heads": 2, **sizes} if family == "distilbert" else sizes
    backbone = AutoModel.from_config(AutoConfig.for_model(family, **sizes))
    depths, num_layers = layer_depths(backbone)
    assert num_layers == 3 and sorted(set(depths.values())) == [0, 1, 2, 3]
    for name, parameter in backbone.named_parameters():
        number = re.search(r"layers?\.(\d)\.", name)
        assert depths[parameter] == (int(number[1]) + 1 if number else 0 if "embed" in name else 3), name


def test_a_backbone_whose_layers_are_one_is_refused():
    config = AutoConfig.for_model("albert", vocab_size=9, hidden_size=4, num_attention_heads=2, intermediate_size=4)
    with pytest.raises(
        InputError,
        match=r"optimizer.layer_decay: the layers of the albert backbone share their weights: set it to null",
    ):
        layer_depths(AutoModel.from_config(config))


def test_a_step_whose_gradients_float16_cannot_hold_is_skipped_and_the_scale_halved():
    model = nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    scaler, before = torch.amp.GradScaler("cpu", init_scale=64.0), model.weight.item()
    for gradient, scale in [(float("inf"), 32.0), (float("nan"), 16.0), (16.0, 16.0)]:
        scaler.scale(torch.zeros(()))  # as the loss
        model.weight.grad = torch.full((1, 1), gradient)
        scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        metrics = gradient_metrics(norm, scaler)
        skipped = not math.isfinite(gradient)
        assert (model.weight.item() == before) == skipped and ("train/grad_norm" not in metrics) == skipped
        assert metrics["train/loss_scale"] == scale
    assert metrics["train/grad_norm"] == 1.0  # 16 unscaled
    with pytest.raises(
        InputError, match=r"train.precision=float16: even at a loss scale of 0.000488 the gradients are"
    ):
        gradient_metrics(norm, torch.amp.GradScaler("cpu", init_scale=2.0**-11))
    assert gradient_metrics(norm, torch.amp.GradScaler("cpu", enabled=False)) == {"train/grad_norm": 1.0}


@pytest.mark.parametrize("value", ["-1", "1.5", "nan", "inf", "-0.1"])
def test_a_warmup_that_is_neither_a_share_nor_a_number_of_steps_is_refused(value):
    with pytest.raises(InputError, match=rf"optimizer.warmup={float(value)}: must be a share of the steps below 1"):
        check_train(compose_config("train", f"optimizer.warmup={value}"))


def test_own_corpus_warms_up_over_a_tenth_of_its_steps_and_the_sample_over_20():
    own = ["data.passages=p", "data.queries=q", "teacher.path=t", "teacher.first_stage=f"]
    assert compose_config("train", "experiment=own-corpus", *own).optimizer.warmup == 0.1
    assert compose_config("train").optimizer.warmup == 20
    assert compose_config("train", "experiment=comparison/ranknet").optimizer.warmup == 5000


def test_a_warmup_that_reaches_the_steps_is_said_before_training(caplog):
    cfg = compose_config("train", "optimizer.warmup=100", "optimizer.lr=1e-5").optimizer
    warn_of_warmup(cfg, 101)
    assert not caplog.messages
    warn_of_warmup(cfg, 15)
    assert caplog.messages == [
        "optimizer.warmup=100 covers all of this run's 15 steps: the learning rate only rises, to 1.5e-06 of 1e-05: "
        "lower it, as in optimizer.warmup=0.1, or train for more steps"
    ]


@pytest.mark.parametrize("prefix", ["", "+", "++"])
def test_the_old_name_of_the_warmup_is_answered_with_the_new_one(prefix):
    with pytest.raises(
        InputError, match="optimizer.warmup_steps=50: is now optimizer.warmup, .*: write optimizer.warmup=50"
    ):
        refuse_renamed(["loss=adrmse", f"{prefix}optimizer.warmup_steps=50"])
    refuse_renamed(["loss=adrmse", "optimizer.warmup=50", "resume=outputs/warmup_steps"])


def muon(*overrides: str):
    return compose_config("train", "optimizer=muon", "optimizer.lr=1e-3", *overrides).optimizer


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """Five Newton-Schulz iterations in float64: singular values from 0 to 1 come near to 1."""
    x = matrix.double() / matrix.double().norm()
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x


def test_muon_without_a_matrix_to_train_is_warned_of(caplog):
    sizes = {"vocab_size": 9, "hidden_size": 4, "num_attention_heads": 2, "num_hidden_layers": 1}
    model = nn.Module()
    model.backbone, model.head = AutoModel.from_config(AutoConfig.for_model("bert", **sizes)), nn.Linear(4, 1)
    model.backbone.requires_grad_(False)
    assert type(make_optimizer(model, muon())) is torch.optim.AdamW
    assert "optimizer=muon: none of the layers' matrices is trained: everything is trained with AdamW" in caplog.text


def test_muon_trains_the_matrices_of_the_layers_and_adamw_the_rest():
    sizes = {"vocab_size": 9, "hidden_size": 4, "num_attention_heads": 2, "num_hidden_layers": 2}
    model = nn.Module()
    model.backbone, model.head = AutoModel.from_config(AutoConfig.for_model("bert", **sizes)), nn.Linear(4, 1)
    rates = ["optimizer.head_lr=1e-2", "optimizer.layer_decay=0.5", "optimizer.warmup=0"]
    cfg = muon("optimizer.weight_decay=0.1", *rates)
    optimizer = make_optimizer(model, cfg)
    set_lr(optimizer, cfg, 0, 10)
    of_muon = {id(each) for group in optimizer.parts[1].param_groups for each in group["params"]}
    groups = {id(each): group for group in optimizer.param_groups for each in group["params"]}
    assert len(groups) == len([*model.parameters()])
    for name, parameter in model.named_parameters():
        is_matrix = parameter.dim() == 2 and "embed" not in name and name != "head.weight"
        assert (id(parameter) in of_muon) == is_matrix, name
        depth = 0 if "embed" in name else int(found[1]) + 1 if (found := re.search(r"layer\.(\d)\.", name)) else 2
        rate = 1e-2 if name.startswith("head.") else 1e-3 * 0.5 ** (3 - depth) * (2 if is_matrix else 1)
        assert groups[id(parameter)]["lr"] == pytest.approx(rate), name
        assert groups[id(parameter)]["weight_decay"] == (0.1 if parameter.dim() == 2 else 0), name


@pytest.mark.parametrize("matrix_lr", [None, 5e-3])
def test_steps_of_muon_are_those_of_a_float64_reference_and_resume_bit_for_bit(matrix_lr):
    torch.manual_seed(0)
    model = _Scorer()
    model.backbone = nn.Linear(16, 8)
    more = [] if matrix_lr is None else [f"optimizer.matrix_lr={matrix_lr}"]
    cfg = muon("optimizer.weight_decay=0.1", "optimizer.warmup=0", "optimizer.schedule=constant", *more)
    optimizer, rate = make_optimizer(model, cfg), matrix_lr or 2e-3
    matrix, mean = model.backbone.weight.detach().double(), torch.zeros(8, 16, dtype=torch.float64)
    for step in range(4):
        gradients = [torch.randn_like(parameter) for parameter in model.parameters()]
        mean = 0.95 * mean + 0.05 * gradients[0].double()
        update = orthogonal(0.05 * gradients[0].double() + 0.95 * mean)  # Nesterov's
        matrix = matrix * (1 - rate * 0.1) - rate * 0.2 * 4 * update  # 4 is the root of the longer side
        if step == 3:
            other = _Scorer()
            other.backbone = nn.Linear(16, 8)
            other.load_state_dict(model.state_dict())
            resumed = make_optimizer(other, cfg)
            resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        for one, its in [(model, optimizer)] + ([(other, resumed)] if step == 3 else []):
            for parameter, gradient in zip(one.parameters(), gradients, strict=True):
                parameter.grad = gradient
            assert set_lr(its, cfg, step, 10) == 1e-3
            its.step()
        moved = 4 * rate * 0.2 * (step + 1)
        assert (model.backbone.weight - matrix).abs().max() < 0.02 * moved  # bfloat16
    assert all(map(torch.equal, model.state_dict().values(), other.state_dict().values()))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optimizer.momentum=0.9"], "optimizer.momentum=0.9 and optimizer.name=adamw: only Muon has it: choose"),
        (["optimizer.matrix_lr=1"], "optimizer.matrix_lr=1.0 and optimizer.name=adamw: only Muon has it: choose"),
        (["optimizer.name=muon"], "optimizer.name=muon needs optimizer.momentum, which optimizer=muon sets"),
        (["optimizer=muon", "optimizer.momentum=1"], "optimizer.momentum=1.0: must be below 1"),
    ],
)
def test_keys_of_muon_go_with_muon(overrides, message):
    with pytest.raises(InputError, match=re.escape(message)):
        check_train(compose_config("train", *overrides))


def test_steps_of_muon_are_those_of_pytorchs(monkeypatch):
    torch.manual_seed(0)
    shapes = [(8, 16), (16, 8), (8, 16), (12, 12), (8, 16)]
    ours, theirs = ([nn.Parameter(torch.full(shape, 0.1)) for shape in shapes] for _ in range(2))
    monkeypatch.setattr("distill.training.muon.AT_ONCE", 2 * 8 * 16)
    monkeypatch.setattr("distill.training.muon.is_emulated", lambda *_: False)
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}
    optimizers = [Muon([{"params": ours}], **options)]
    optimizers.append(torch.optim.Muon(theirs, adjust_lr_fn="match_rms_adamw", **options))
    for _ in range(3):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = other.grad = torch.randn_like(one)
        ours[2].grad = theirs[2].grad = None
        for optimizer in optimizers:
            optimizer.step()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=0.01, rtol=0)  # of moves of 0.25: bfloat16
    assert torch.equal(ours[2], torch.full((8, 16), 0.1))


def test_a_cpu_without_bfloat16_makes_matrices_orthogonal_in_float32(monkeypatch):
    torch.manual_seed(0)
    matrices = torch.randn(3, 20, 12)
    expected = torch.stack([orthogonal(matrix.T).T for matrix in matrices])
    for flags, atol in (({"avx2"}, 1e-5), ({"avx2", "avx512_bf16"}, 0.03)):
        monkeypatch.setattr("distill.device.cpu_flags", lambda path, flags=flags: frozenset(flags))
        found = orthogonalised(matrices)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), expected, atol=atol, rtol=0)
    singular = torch.linalg.svdvals(expected)
    assert singular.min() > 0.6 and singular.max() < 1.3
