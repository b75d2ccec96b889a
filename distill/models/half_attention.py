"""Attention in half precision on a CPU, with its gradients in float32.

    if takes_half_attention(queries, keys, values, length):
        attended = HalfAttention.apply(queries, keys, values, causal, scale)

PyTorch computes gradients of scaled_dot_product_attention in bfloat16 on a CPU two to seven times as slowly as in
float32, for sequences of up to a few hundred tokens. The forward pass here is PyTorch's, bit for bit. The backward pass
is PyTorch's in float32, which is also more exact; the gradients are rounded at its end.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

MAX_LENGTH = 511  # of a sequence; for longer ones, PyTorch's backward pass is as fast in half precision

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def takes_half_attention(queries: Tensor, keys: Tensor, values: Tensor, length: int) -> bool:
    """Whether gradients of attention in half precision will be computed on a CPU, over `length` keys of a sequence."""
    states = (queries, keys, values)
    needs_gradients = torch.is_grad_enabled() and any(state.requires_grad for state in states)
    in_half = all(state.dtype in (torch.bfloat16, torch.float16) for state in states)
    return needs_gradients and in_half and queries.device.type == "cpu" and length <= MAX_LENGTH


class HalfAttention(torch.autograd.Function):
    """Attention of queries [n, H, q, d] to keys and values [n, H, l, d], all in half precision; gives [n, H, q, d].

    causal: tokens attend to themselves and to earlier ones. scale: of the dot products; None: 1/sqrt(d).
    """

    @staticmethod
    def forward(ctx, queries: Tensor, keys: Tensor, values: Tensor, causal: bool, scale: float | None) -> Tensor:
        """Keep what PyTorch's backward pass needs: inputs, output and the logarithm of the softmax's denominators."""
        attended, logsumexp = _forward(queries, keys, values, 0.0, causal, scale=scale)
        ctx.save_for_backward(queries, keys, values, attended, logsumexp)
        ctx.options = {"is_causal": causal, "scale": scale}
        return attended

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        """Return the gradients of queries, keys and values, in their type."""
        *states, logsumexp = ctx.saved_tensors
        wide = [state.float() for state in (gradient, *states)]
        gradients = _backward(*wide, logsumexp, dropout_p=0.0, **ctx.options)
        return *(each.to(gradient.dtype) for each in gradients), None, None
