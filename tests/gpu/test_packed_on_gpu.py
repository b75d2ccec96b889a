"""The packed layout on CUDA: varlen_attn against the padded layout, compiled against eager, two passes against one.

python -m pytest tests/gpu
"""

import pytest
import torch

from distill.losses.objective import Objective
from distill.models.cross_encoder import CrossEncoder
from distill.training.backward import backward
from tests.helpers.backbones import PACKED_FAMILIES, make_backbone, positions
from tests.helpers.batches import LENGTHS, SIZES, ragged_batch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DEVICE = torch.device("cuda")
RANKNET = Objective({"name": "ranknet", "target": "rank", "reduction": "sum"})


def load(directory, layout: str, dropout: float = 0.0) -> CrossEncoder:
    torch.manual_seed(0)
    model = CrossEncoder.from_backbone(str(directory), "cls", 32, 472, layout=layout, dropout=dropout)
    return model.to(DEVICE).train()


def run(model: CrossEncoder, precision: torch.dtype, max_tokens: int = 4096) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores and the gradient of a loss of them, flat and in float32."""
    batch = ragged_batch(LENGTHS, SIZES).to(DEVICE)
    batch.targets = {"rank": batch.mask.float().cumsum(1) * batch.mask}
    model.zero_grad()
    torch.manual_seed(0)
    backward(model, batch, RANKNET, torch.tensor([7], device=DEVICE), [1.0], max_tokens, precision)
    with torch.no_grad(), torch.autocast("cuda", dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
        scores = model.score(batch, max_tokens)[batch.mask]
    return scores, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("precision, scores_tolerance, gradient_tolerance",
                         [(torch.float32, 1e-4, 1e-3), (torch.bfloat16, 0.05, 0.1)])  # fmt: skip
@pytest.mark.parametrize("family", PACKED_FAMILIES)
def test_packed_is_padded(tmp_path, family, precision, scores_tolerance, gradient_tolerance):
    directory = positions(make_backbone(tmp_path, family))
    packed, padded = (run(load(directory, layout), precision) for layout in ("packed", "padded"))
    scale = padded[0].abs().max().clamp(min=1)
    assert (packed[0] - padded[0]).abs().max() <= scores_tolerance * scale
    assert (packed[1] - padded[1]).norm() <= gradient_tolerance * padded[1].norm()


@pytest.mark.parametrize("family", PACKED_FAMILIES)
def test_compiled_is_eager_within_the_rounding_of_bfloat16(tmp_path, family):
    directory = positions(make_backbone(tmp_path, family))
    eager, compiled = load(directory, "packed"), load(directory, "packed")
    compiled.backbone.compile(dynamic=True)
    (scores, gradient), (same, other) = (run(model, torch.bfloat16) for model in (eager, compiled))
    assert (scores - same).abs().max() <= 0.05 * scores.abs().max().clamp(min=1)
    assert (gradient - other).norm() <= 0.1 * gradient.norm()


@pytest.mark.parametrize("compile", [False, True])
def test_two_passes_replay_dropout(tmp_path, compile):
    model = load(positions(make_backbone(tmp_path, "electra")), "packed", dropout=0.2)
    if compile:
        model.backbone.compile(dynamic=True)
    _, one = run(model, torch.float32, max_tokens=4096)
    _, again = run(model, torch.float32, max_tokens=4096)
    assert torch.equal(one, again) or (one - again).norm() <= 1e-4 * one.norm()
    passes: list[torch.Tensor] = []  # the scores of each chunk, in the first pass and in the second
    model.register_forward_hook(lambda module, inputs, scores: passes.append(scores.detach().clone()))
    batch = ragged_batch(LENGTHS, SIZES).to(DEVICE)
    batch.targets = {"rank": batch.mask.float().cumsum(1) * batch.mask}
    for _ in range(2):
        backward(model, batch, RANKNET, torch.tensor([7], device=DEVICE), [1.0], 600, torch.float32)
    num_chunks = len(passes) // 4
    assert num_chunks > 1 and len(passes) == 4 * num_chunks
    first, second, of_another_step = (torch.cat(passes[n * num_chunks : (n + 1) * num_chunks]) for n in range(3))
    torch.testing.assert_close(second, first, rtol=1e-4, atol=1e-5, equal_nan=True)
    assert (of_another_step - first).abs().nan_to_num().max() > 0.01  # where other units are dropped


def test_a_step_does_not_wait_for_the_gpu(tmp_path):
    model = load(positions(make_backbone(tmp_path, "electra")), "packed")
    batch = ragged_batch(LENGTHS, SIZES).to(DEVICE)
    batch.targets = {"rank": batch.mask.float().cumsum(1) * batch.mask}
    num_terms = torch.tensor([7], device=DEVICE)
    backward(model, batch, RANKNET, num_terms, [1.0], 4096, torch.bfloat16)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        backward(model, batch, RANKNET, num_terms, [1.0], 4096, torch.bfloat16)
    finally:
        torch.cuda.set_sync_debug_mode("default")
