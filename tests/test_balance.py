"""Weights as shares of the gradient norm."""

import pytest
import torch

from latentwire.balance import Balance, norm


def noisy(scale, seed):
    generator = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(40, generator=generator), scale * torch.randn(3, 5, generator=generator)]


def test_shares_hold_within_a_tenth_when_losses_differ_a_thousandfold():
    balance = Balance({"large": 0.3, "small": 0.7})
    seen = [balance.combine({"large": noisy(1000.0, s), "small": noisy(1.0, 100 + s)})[1] for s in range(60)]
    mean = sum(shares["large"] for shares in seen[10:]) / 50
    assert mean == pytest.approx(0.3, rel=0.1)
    assert all(shares["large"] + shares["small"] == pytest.approx(1.0) for shares in seen)


def test_combined_gradient_keeps_the_direction_of_each_objective():
    balance = Balance({"a": 1.0, "b": 1.0})
    combined, _ = balance.combine({"a": [torch.tensor([1000.0, 0.0])], "b": [torch.tensor([0.0, 0.001])]})
    torch.testing.assert_close(combined[0], torch.tensor([0.5, 0.5]))


def test_plain_weights_multiply_the_gradients():
    combined, shares = Balance({"a": 2.0, "b": 1.0}, "plain").combine(
        {"a": [torch.tensor([3.0, 0.0])], "b": [torch.tensor([0.0, 6.0])]}
    )
    torch.testing.assert_close(combined[0], torch.tensor([6.0, 6.0]))
    assert shares == {"a": 0.5, "b": 0.5}


def test_zero_gradient_gets_no_share_and_breaks_nothing():
    combined, shares = Balance({"a": 1.0, "b": 1.0}).combine({"a": [torch.zeros(2)], "b": [torch.tensor([0.0, 4.0])]})
    assert shares == {"a": 0.0, "b": 1.0}
    torch.testing.assert_close(combined[0], torch.tensor([0.0, 0.5]))


def test_norm_is_over_all_parameters_together():
    assert norm([torch.tensor([3.0]), torch.tensor([[4.0]])]) == pytest.approx(5.0)
