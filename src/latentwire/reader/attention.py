"""Attention for training on a CPU: few questions of many heads that share keys, faster than what torch has for it.

Heads that share a key and value head are folded into one product instead of being given copies of both (transformers does
that, and sums the copies' gradients). Without gradients, on other devices, and where a model asks for more than a mask, transformers'
own attention is used.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "folded"


def use_folded_attention(model: Any) -> None:
    """Let a model on a CPU that attends by torch's `sdpa` attend by `folded` where gradients are asked for."""
    if model.device.type == "cpu" and getattr(model.config, "_attn_implementation", None) == "sdpa":
        model.set_attn_implementation(NAME)


def folded(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **given: Any,
) -> tuple[Tensor, None]:
    """Attention outputs `[B, T, H, d]` of queries `[B, H, T, d]` over keys and values `[B, G, N, d]`, `H` a multiple of `G`.

    `attention_mask [B, 1, T, N]` is true where a query may look. Scores are rounded to the reader's dtype, weights are
    computed in fp32.
    """
    more = [name for name in ("softcap", "position_bias", "s_aux") if given.get(name) is not None]
    if more or attention_mask is None or not (query.requires_grad or key.requires_grad):
        out, _ = sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **given)
        return out, None
    batch, heads, asked, width = query.shape
    groups, seen = key.shape[1:3]
    scale = width**-0.5 if scaling is None else scaling
    scores = (query.reshape(batch, groups, -1, width) * scale) @ key.transpose(2, 3)
    scores = scores.view(batch, groups, -1, asked, seen).masked_fill(~attention_mask[:, :, None], _least(scores))
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype)
    out = weights.view(batch, groups, -1, seen) @ value
    return out.view(batch, heads, asked, -1).transpose(1, 2), None


def _least(scores: Tensor) -> float:
    """A finite score: a row of padding, which may look nowhere, then gets weights that are numbers."""
    return torch.finfo(scores.dtype).min


AttentionInterface.register(NAME, folded)
AttentionMaskInterface.register(NAME, sdpa_mask)
