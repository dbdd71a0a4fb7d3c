"""Losses against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch

from learners.losses.reductions import standardised, weighted_mean
from learners.losses.value_learning import huber, q_learning_td_error, squared

Q_TM1 = torch.tensor([[1.0, 2.0], [0.5, -1.0]])
A_TM1 = torch.tensor([1, 0])
R_T = torch.tensor([1.0, -2.0])
DISCOUNT_T = torch.tensor([0.9, 0.0])
Q_T = torch.tensor([[3.0, 4.0], [7.0, 8.0]])
Q_T_SELECTOR = torch.tensor([[1.0, 0.0], [0.0, 1.0]])


def test_q_learning_takes_the_largest_target_value() -> None:
    error = q_learning_td_error(Q_TM1, A_TM1, R_T, DISCOUNT_T, Q_T, Q_T)
    assert error.tolist() == pytest.approx([1.0 + 0.9 * 4.0 - 2.0, -2.0 - 0.5])


def test_double_q_learning_evaluates_the_selectors_choice() -> None:
    error = q_learning_td_error(Q_TM1, A_TM1, R_T, DISCOUNT_T, Q_T, Q_T_SELECTOR)
    assert error.tolist() == pytest.approx([1.0 + 0.9 * 3.0 - 2.0, -2.0 - 0.5])


@pytest.mark.parametrize("name", ["r_t", "discount_t", "a_tm1"])
def test_column_vectors_are_refused_instead_of_broadcast(name: str) -> None:
    arguments = {"a_tm1": A_TM1, "r_t": R_T, "discount_t": DISCOUNT_T}
    arguments[name] = arguments[name].unsqueeze(1)
    with pytest.raises(ValueError, match=f"{name} has shape"):
        q_learning_td_error(Q_TM1, q_t=Q_T, q_t_selector=Q_T, **arguments)


def test_no_gradient_flows_through_the_target() -> None:
    q_tm1, q_t = Q_TM1.clone().requires_grad_(), Q_T.clone().requires_grad_()
    q_learning_td_error(q_tm1, A_TM1, R_T, DISCOUNT_T, q_t, q_t).sum().backward()
    assert q_t.grad is None
    assert q_tm1.grad is not None and q_tm1.grad.tolist() == [[0.0, -1.0], [-1.0, 0.0]]


def test_huber_is_quadratic_then_linear() -> None:
    error = torch.tensor([-3.0, -1.0, 0.0, 0.5, 2.0])
    assert huber(error, 1.0).tolist() == pytest.approx([2.5, 0.5, 0.0, 0.125, 1.5])
    expected = torch.nn.functional.huber_loss(error, torch.zeros(5), delta=1.7, reduction="none")
    assert torch.allclose(huber(error, 1.7), expected)
    assert squared(error).tolist() == pytest.approx([4.5, 0.5, 0.0, 0.125, 2.0])


@pytest.mark.parametrize("loss", [lambda e: huber(e, 1.0), squared])
def test_importance_weights_change_the_gradient_of_every_loss(loss: object) -> None:
    gradients = []
    for weights in (torch.ones(2), torch.tensor([0.25, 1.0])):
        error = torch.tensor([3.0, 0.5], requires_grad=True)
        weighted_mean(loss(error), weights).backward()  # type: ignore[operator]
        gradients.append(error.grad)
    assert torch.allclose(gradients[1], gradients[0] * torch.tensor([0.25, 1.0]))
    with pytest.raises(ValueError, match="weights has shape"):
        weighted_mean(torch.ones(2), torch.ones(2, 1))


def test_standardised_by_hand() -> None:
    values, mask = torch.tensor([1.0, 5.0, 99.0]), torch.tensor([1.0, 1.0, 0.0])
    assert standardised(values, mask, 0.5)[:2].tolist() == pytest.approx([-2.0 / 2.5, 2.0 / 2.5])


@pytest.mark.parametrize("value", [0.0, 0.1, 100.1, -12345.678])
@pytest.mark.parametrize("size", [1, 7, 1024, 4096])
def test_values_that_are_all_alike_are_standardised_to_zeros(value: float, size: int) -> None:
    """What rounding leaves would otherwise push a policy as hard as the best and the worst action do."""
    assert not standardised(torch.full((size,), value), torch.ones(size), 1e-8).any()
