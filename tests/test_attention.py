"""Attention of heads folded together gives what transformers' own attention gives, in value and in gradient."""

import pytest
import torch

from latentwire.reader.attention import NAME
from latentwire.reader.inputs import pad_left
from tiny import FAMILIES, tiny_reader

ROWS = [torch.randn(length, 64, generator=torch.Generator().manual_seed(length)) for length in (9, 4, 23)]


def measured(reader, attention):
    used = reader.model.config._attn_implementation
    reader.model.set_attn_implementation(attention)
    try:
        rows = [row.clone().requires_grad_() for row in ROWS]
        inputs = pad_left(rows)
        hidden = reader.hidden_states(inputs)[inputs.mask]
        return hidden, torch.autograd.grad((hidden * torch.linspace(-1, 1, hidden.shape[-1])).sum(), rows)
    finally:
        reader.model.set_attn_implementation(used)


@pytest.mark.parametrize("family", FAMILIES)
def test_folded_heads_give_the_hidden_states_and_gradients_of_transformers_attention(family):
    reader = tiny_reader(family)
    assert reader.model.config._attn_implementation == NAME
    (found, gradients), (expected, expected_gradients) = measured(reader, NAME), measured(reader, "sdpa")
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    for gradient, other in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_gradients_attention_is_transformers_own(family):
    reader = tiny_reader(family)
    with torch.no_grad():
        inputs = pad_left(ROWS)
        found = reader.hidden_states(inputs)
        reader.model.set_attn_implementation("sdpa")
        try:
            expected = reader.hidden_states(inputs)
        finally:
            reader.model.set_attn_implementation(NAME)
    assert torch.equal(found, expected)
