"""Optimizers against formulas written out once more, schedules against numbers worked out by hand."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from kit.learning import DISCRETE, batch_of, random_columns, spec_of
from torch import Tensor, nn

from learners.algorithm import AlgorithmConfig
from learners.algorithms.dqn import DQNConfig
from learners.optimization.flat import blocks
from learners.optimization.optimizers import NotFinite, Optimizer
from learners.optimization.schedules import cosine, linear, warm_restarts
from learners.optimization.targets import TargetUpdate

BASE = AlgorithmConfig(learning_rate=0.1, max_grad_norm=None)


def config(**changes: Any) -> AlgorithmConfig:
    return msgspec.structs.replace(BASE, **changes)


def module(*sizes: int) -> nn.Sequential:
    layers = nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(sizes)))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return layers


def vector_of(layers: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().reshape(-1) for parameter in layers.parameters()]).double()


def losses(count: int, size: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(size, generator=generator) * 10.0 ** (number % 3) for number in range(count)]


def walked(settings: AlgorithmConfig, steps: int = 14) -> list[Tensor]:
    """Parameters after each step on losses whose gradients are fixed vectors."""
    layers = module(3, 2)
    optimizer, path = Optimizer(layers, settings), []
    for gradient in losses(steps, 8):
        weight, bias = layers[0].weight, layers[0].bias
        optimizer.minimise((gradient[:6].view(2, 3) * weight).sum() + (gradient[6:] * bias).sum())
        path.append(vector_of(layers))
    return path


def radam(x: Tensor, gradients: list[Tensor], rate: float, decay: float) -> list[Tensor]:
    """Liu et al. 2020, algorithm 2, with numbers as Python has them."""
    m, v, path = torch.zeros_like(x), torch.zeros_like(x), []
    longest = 2 / (1 - 0.999) - 1
    for t, gradient in enumerate(gradients, start=1):
        gradient = gradient + decay * x
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        rho = longest - 2 * t * 0.999**t / (1 - 0.999**t)
        step = m / (1 - 0.9**t)
        if rho > 5:
            r = math.sqrt((rho - 4) * (rho - 2) * longest / ((longest - 4) * (longest - 2) * rho))
            step = step * r / (torch.sqrt(v) + 1e-8) * math.sqrt(1 - 0.999**t)
        x = x - rate * step
        path.append(x)
    return path


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_radam_is_the_papers(decay: float) -> None:
    gradients = [gradient.double() for gradient in losses(14, 8)]
    expected = radam(vector_of(module(3, 2)), gradients, 0.1, decay)
    for ours, theirs in zip(walked(config(optimizer="radam", weight_decay=decay)), expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("kind", ["adam", "adamw", "radam", "sgd"])
def test_steps_are_those_of_torch(kind: str, decay: float) -> None:
    layers = module(3, 2)
    changes: dict[str, Any] = {"momentum": 0.9} if kind == "sgd" else {"adam_epsilon": 1e-3}
    known = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "radam": torch.optim.RAdam, "sgd": torch.optim.SGD}
    extra: dict[str, Any] = {"momentum": 0.9} if kind == "sgd" else {"eps": 1e-3}
    theirs = known[kind](layers.parameters(), lr=0.1, weight_decay=decay, **extra)
    path = walked(config(optimizer=kind, weight_decay=decay, **changes))
    for gradient, ours in zip(losses(14, 8), path, strict=True):
        layers[0].weight.grad, layers[0].bias.grad = gradient[:6].view(2, 3), gradient[6:]
        theirs.step()
        assert torch.allclose(ours, vector_of(layers), rtol=1e-4, atol=1e-5)


def test_lookahead_goes_back_every_few_steps() -> None:
    settings = config(optimizer="sgd", lookahead_period_updates=3, lookahead_alpha=0.25)
    slow = x = vector_of(module(3, 2))
    for number, (gradient, ours) in enumerate(zip(losses(14, 8), walked(settings), strict=True), start=1):
        x = x - 0.1 * gradient.double()
        if number % 3 == 0:
            slow = x = slow + 0.25 * (x - slow)
        assert torch.allclose(ours, x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["adam", "adamw", "radam", "sgd"])
def test_everything_is_saved_and_continued_bit_for_bit(kind: str) -> None:
    settings = DQNConfig(
        target_update_tau=0.1, hidden_sizes=(8,), optimizer=kind, lookahead_period_updates=2, weight_decay=0.01,
        momentum=0.9 if kind == "sgd" else 0.0, final_learning_rate=1e-4, learning_rate_decay_env_steps=50,
        learning_rate_decay="restarts", learning_rate_restart_growth=2.0,
    )  # fmt: skip
    rng, spec = np.random.default_rng(0), spec_of(settings, DISCRETE)
    batches = [batch_of(spec, random_columns(settings, DISCRETE, rng), inserted=30 * i) for i in range(8)]
    first, second = (settings.make_learner(DISCRETE, spec, seed=seed, device="cpu") for seed in (0, 1))
    for batch in batches[:3]:
        first.step(batch)
    second.load_state_dict(first.state_dict())
    for batch in batches[3:]:
        first.step(batch)
        second.step(batch)
    states = first.state_dict(), second.state_dict()
    assert "optimizer.online.slow" in states[0] and states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_gradients_are_scaled_down_to_the_norm_and_never_turned_round() -> None:
    """RecNN called clip_grad_norm_(.., -1, 1), which reverses gradients."""
    start = vector_of(module(3, 2))
    for most, factor in ((None, 1.0), (1000.0, 1.0), (0.5, 0.5)):
        [after] = walked(config(optimizer="sgd", max_grad_norm=most), steps=1)
        gradient = losses(1, 8)[0].double()
        expected = gradient if factor == 1.0 else gradient * factor / gradient.norm()
        assert torch.allclose(start - after, 0.1 * expected, rtol=1e-4, atol=1e-5)
    for wrong in (0.0, -1.0):
        with pytest.raises(msgspec.ValidationError, match="max_grad_norm"):
            msgspec.convert({"max_grad_norm": wrong}, AlgorithmConfig)


def test_with_and_without_looking_at_the_host_steps_are_the_same() -> None:
    layers = [module(3, 2), module(3, 2)]
    optimizers = [Optimizer(each, config(max_grad_norm=0.5)) for each in layers]
    optimizers[1].checks = False
    for factor in (0.01, 5.0, 1.0):
        for each, optimizer in zip(layers, optimizers, strict=True):
            optimizer.minimise(factor * each(torch.ones(4, 3)).square().mean())
        assert torch.allclose(vector_of(layers[0]), vector_of(layers[1]), atol=1e-6)
    assert len(optimizers[1].take_health()) == 3 and optimizers[1].take_health() == optimizers[0].take_health() == []


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_loss_that_is_not_finite_changes_nothing(bad: float) -> None:
    layers = module(3, 2)
    optimizer = Optimizer(layers, config(lookahead_period_updates=1))
    optimizer.minimise(layers(torch.ones(1, 3)).sum())
    before = vector_of(layers), {name: value.clone() for name, value in optimizer.state_dict().items()}
    with pytest.raises(NotFinite):
        optimizer.minimise(layers(torch.ones(1, 3)).sum() * bad)
    with pytest.raises(NotFinite):  # its gradient is zero
        optimizer.minimise(layers(torch.ones(1, 3)).sum() * 0.0 + bad)
    assert torch.equal(before[0], vector_of(layers))
    assert all(torch.equal(value, before[1][name]) for name, value in optimizer.state_dict().items())


def test_an_optimizer_touches_its_own_module_only() -> None:
    first, second = module(3, 3), module(3, 1)
    frozen = module(3, 3).requires_grad_(False)
    optimizer = Optimizer(nn.ModuleList([first, frozen]), BASE)
    before = vector_of(frozen), vector_of(first)
    optimizer.minimise(second(frozen(first(torch.ones(2, 3)))).mean())
    assert all(parameter.grad is None for parameter in second.parameters())
    assert torch.equal(before[0], vector_of(frozen)) and not torch.equal(before[1], vector_of(first))


def test_a_parameter_has_one_optimizer() -> None:
    shared, own = module(3, 3), module(3, 1)
    first = Optimizer(nn.Sequential(shared, own), BASE)
    first.check_valid()
    Optimizer(shared, BASE)
    with pytest.raises(ValueError, match="second Optimizer"):
        first.check_valid()


def test_state_of_another_shape_is_refused() -> None:
    state = Optimizer(module(3, 2), BASE).state_dict()
    with pytest.raises(ValueError, match="first has shape"):
        Optimizer(module(3, 3), BASE).load_state_dict(state)
    with pytest.raises(KeyError):
        Optimizer(module(3, 2), config(lookahead_period_updates=2)).load_state_dict(state)


def test_targets_follow_whether_or_not_the_memory_is_one_vector() -> None:
    for shared in (True, False):
        online = nn.ModuleList([module(3, 2), module(2, 1)])
        target = nn.ModuleList([module(3, 2), module(2, 1)])
        move = TargetUpdate((online, target), tau=0.25)
        if shared:
            Optimizer(online, BASE)
        else:
            Optimizer(online[1], BASE)
        start = vector_of(target)
        assert len(blocks(online.parameters())) == (1 if shared else 3)
        with torch.no_grad():
            for parameter in online.parameters():
                parameter.add_(1.0)
        move(1)
        assert torch.allclose(vector_of(target), start + 0.25)
        move(2)
        assert torch.allclose(vector_of(target), start + 0.4375)


def test_schedules() -> None:
    assert [linear(4.0, 2.0, p) for p in (-1.0, 0.0, 0.5, 1.0, 9.0)] == [4.0, 4.0, 3.0, 2.0, 2.0]
    assert [cosine(4.0, 2.0, p) for p in (0.0, 1 / 3, 0.5, 1.0, 9.0)] == pytest.approx([4.0, 3.5, 3.0, 2.0, 2.0])
    again = [warm_restarts(4.0, 2.0, p, 1.0) for p in (0.0, 0.5, 1.0, 1.5, 7.5)]
    assert again == pytest.approx([4.0, 3.0, 4.0, 3.0, 3.0])
    # periods of 1, 2, 4: they begin at 0, 1, 3, 7
    longer = [warm_restarts(4.0, 2.0, p, 2.0) for p in (0.5, 1.0, 2.0, 3.0, 5.0, 7.0, 11.0)]
    assert longer == pytest.approx([3.0, 4.0, 3.0, 4.0, 3.0, 4.0, 3.0], abs=1e-6)
    starts = [
        warm_restarts(4.0, 2.0, (growth**k - 1.0) / (growth - 1.0), growth) for k in range(9) for growth in (1.5, 3)
    ]
    assert starts == pytest.approx([4.0] * 18, abs=1e-6)  # however they are rounded


def test_the_step_size_follows_the_named_schedule() -> None:
    falls = {"final_learning_rate": 0.02, "learning_rate_decay_env_steps": 100}
    assert BASE.rate(10**9) == 0.1
    assert config(**falls).rate(50) == pytest.approx(0.06)
    assert config(**falls, learning_rate_decay="cosine").rate(50) == pytest.approx(0.06)
    assert config(**falls, learning_rate_decay="cosine").rate(25) == pytest.approx(0.06 + 0.04 * math.sqrt(0.5))
    assert config(**falls, learning_rate_decay="restarts").rate(100) == pytest.approx(0.1)
    restarts = config(**falls, learning_rate_decay="restarts", learning_rate_restart_growth=3.0)
    assert restarts.rate(250) == pytest.approx(0.06)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"final_learning_rate": 0.01}, "final_learning_rate and learning_rate_decay_env_steps"),
        ({"learning_rate_decay": "cosine"}, "learning_rate_decay is cosine: set learning_rate_decay_env_steps"),
        ({"learning_rate_restart_growth": 2.0}, "learning_rate_restart_growth needs learning_rate_decay"),
        ({"momentum": 0.5}, "momentum is of optimizer sgd; adam"),
        ({"adam_epsilon": 1e-3, "optimizer": "sgd"}, "adam_epsilon does nothing with optimizer sgd"),
        ({"lookahead_alpha": 0.8}, "lookahead_alpha does nothing without lookahead_period_updates"),
    ],
)
def test_contradictions_are_refused_with_both_names(changes: dict[str, Any], names: str) -> None:
    with pytest.raises(ValueError, match=names):
        config(**changes)


def test_only_attention_divides_a_history_among_heads() -> None:
    assert config(torso="gru", encoder_size=63).encoder_size == 63
    with pytest.raises(ValueError, match="attention_heads 2 is no divisor of encoder_size 63"):
        config(torso="attention", encoder_size=63)
