"""Make the last layer compute only what a score needs: the state of each pair's first token.

    score_only_first_states(backbone)                 # True if the backbone's last layer could be changed

Shapes: T tokens, S pairs, p pairs of a padded chunk, L tokens of its longest, D hidden size.
"""

import types
from typing import TYPE_CHECKING

from torch import Tensor

from distill.models.packed import BERT_LIKE

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def score_only_first_states(backbone: "PreTrainedModel") -> bool:
    """Make the last layer return only the states of first tokens, if its architecture is known; return whether it does.

    In BERT-like models the last layer needs the keys and values of all tokens, but queries, output and feed-forward
    network only for the first. This saves a seventh of all arithmetic with 6 layers, a fourteenth with 12.
    """
    if backbone.config.model_type not in BERT_LIKE:
        return False
    layer = backbone.encoder.layer[-1]
    layer.forward = types.MethodType(_forward_first_states, layer)  # on this instance only; weight names do not change
    return True


def _forward_first_states(layer, hidden_states: Tensor, attention_mask: Tensor | None = None, *_, **kwargs):
    """Run a BERT layer for the first token of each pair only.

    hidden_states: [1, T, D] if packed, which gives [1, S, D]; [p, L, D] if padded, which gives [p, 1, D].
    """
    from transformers import AttentionInterface

    attention = layer.attention.self
    if "cu_seqlens" in kwargs:
        places = kwargs["cu_seqlens"][:-1].clamp(max=hidden_states.shape[1] - 1)  # empty pairs at the end start at T
        first = hidden_states[:, places]
        kwargs["first_only"] = True
    else:
        first = hidden_states[:, :1]
        attention_mask = None if attention_mask is None else attention_mask[:, :, :1]
    query, key, value = (
        layer_part(states).unflatten(-1, (-1, attention.attention_head_size)).transpose(1, 2)
        for layer_part, states in (
            (attention.query, first),
            (attention.key, hidden_states),
            (attention.value, hidden_states),
        )
    )
    attend = AttentionInterface()[attention.config._attn_implementation]
    dropout = attention.dropout.p if attention.training else 0.0
    kwargs |= {"dropout": dropout, "scaling": attention.scaling}
    attended, _ = attend(attention, query, key, value, attention_mask, **kwargs)
    attended = layer.attention.output(attended.flatten(2), first)
    return layer.feed_forward_chunk(attended)
