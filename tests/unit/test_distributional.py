"""Losses of C51 and QR-DQN against loops and numbers worked out by hand; every setting of the two does something."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from kit.learning import DISCRETE, batch_of, every_field_matters, own_metrics, random_columns, spec_of

from learners.algorithms.c51 import C51Config
from learners.algorithms.dqn import DQNConfig
from learners.algorithms.qr_dqn import QRDQNConfig
from learners.losses.distributional import categorical_projection, categorical_td, quantile_huber, quantile_td
from learners.losses.reductions import weighted_mean
from learners.task import DiscreteActions, Task
from learners.value_learning import choice_entropy

SUPPORT = torch.tensor([-1.0, 0.0, 1.0])


def obvious_projection(probabilities: np.ndarray, atoms: np.ndarray, support: np.ndarray) -> np.ndarray:
    """Each atom's mass goes to the support's values in proportion to how near they are, within one step."""
    step, projected = support[1] - support[0], np.zeros_like(probabilities)
    for row in range(len(probabilities)):
        for mass, atom in zip(probabilities[row], atoms[row], strict=True):
            for place, value in enumerate(support):
                at = min(max(atom, support[0]), support[-1])
                projected[row, place] += mass * max(0.0, 1.0 - abs(at - value) / step)
    return projected


def test_the_projection_shares_mass_between_neighbours() -> None:
    probabilities = torch.tensor([[0.2, 0.3, 0.5], [0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])
    atoms = torch.tensor([[-0.5, 0.25, 1.0], [-9.0, 0.0, 7.0], [1.0, 0.0, 0.0]])
    expected = [[0.1, 0.1 + 0.225, 0.075 + 0.5], [0.2, 0.3, 0.5], [0.0, 0.0, 1.0]]
    assert torch.allclose(categorical_projection(probabilities, atoms, SUPPORT), torch.tensor(expected))


def test_the_projection_is_that_of_the_obvious_loop() -> None:
    rng = np.random.default_rng(0)
    support = np.linspace(-2.0, 6.0, 17)
    probabilities = rng.dirichlet(np.ones(17), size=20)
    atoms = rng.normal(size=(20, 1)) + rng.uniform(0.0, 1.0, (20, 1)) * support
    atoms[0] = support  # exactly on the support
    ours = categorical_projection(*map(torch.from_numpy, (probabilities, atoms, support))).numpy()
    assert np.allclose(ours, obvious_projection(probabilities, atoms, support), atol=1e-12)
    assert np.allclose(ours.sum(axis=1), 1.0)
    inside = (atoms.min(axis=1) >= -2.0) & (atoms.max(axis=1) <= 6.0)
    assert inside.sum() > 5 and np.allclose((ours @ support)[inside], (probabilities * atoms).sum(axis=1)[inside])


LOGITS_TM1 = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 2.0, 0.5]], [[0.0, 1.0, 0.0], [3.0, 0.0, 0.0]]])
LOGITS_T = torch.tensor([[[0.0, 0.0, 0.0], [9.0, 0.0, 0.0]], [[1.0, 1.0, 1.0], [0.0, 0.0, 5.0]]])
A_TM1 = torch.tensor([0, 1])
R_T = torch.tensor([0.5, -1.0])
DISCOUNT_T = torch.tensor([0.5, 0.0])
SELECTOR = torch.tensor([[1.0, 0.0], [0.0, -math.inf]])


def test_categorical_cross_entropy_and_divergence_by_hand() -> None:
    losses, errors = categorical_td(LOGITS_TM1, A_TM1, R_T, DISCOUNT_T, LOGITS_T, SELECTOR, SUPPORT)
    # first: thirds at 0, .5, 1 -> (0, 1/2, 1/2) against thirds; second: all at -1 against softmax(3, 0, 0)
    second = -math.log(math.exp(3.0) / (math.exp(3.0) + 2.0))
    assert losses.tolist() == pytest.approx([math.log(3.0), second], rel=1e-5)
    assert errors.tolist() == pytest.approx([math.log(3.0) - math.log(2.0), second], rel=1e-5)


def test_quantile_huber_by_hand() -> None:
    quantiles, targets = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 3.0]])
    # tau .25: errors .5, 3 over-shoot: .25 x (.125 + 2.5); tau .75: error -.5 weighs .25, 2 weighs .75
    expected = (0.25 * 0.125 + 0.25 * 2.5) / 2 + (0.25 * 0.125 + 0.75 * 1.5) / 2
    assert quantile_huber(quantiles, targets, 1.0).tolist() == pytest.approx([expected])
    plain = (0.25 * 0.5 + 0.25 * 3.0) / 2 + (0.25 * 0.5 + 0.75 * 2.0) / 2
    assert quantile_huber(quantiles, targets, 0.0).tolist() == pytest.approx([plain])
    assert quantile_huber(quantiles, targets, 1e-6).tolist() == pytest.approx([plain], rel=1e-4)


def test_quantile_huber_is_that_of_the_obvious_loop() -> None:
    rng = np.random.default_rng(1)
    quantiles, targets, kappa = rng.normal(size=(4, 5)), 2.0 * rng.normal(size=(4, 7)), 0.7
    expected = np.zeros(4)
    for row in range(4):
        for place in range(5):
            for target in targets[row]:
                error = target - quantiles[row, place]
                size = 0.5 * error**2 if abs(error) <= kappa else kappa * (abs(error) - 0.5 * kappa)
                expected[row] += abs((place + 0.5) / 5 - (error < 0)) * size / kappa / 7
    assert np.allclose(quantile_huber(torch.from_numpy(quantiles), torch.from_numpy(targets), kappa), expected)


def test_quantile_errors_are_the_distance_of_the_distributions() -> None:
    _, errors = quantile_td(LOGITS_TM1, A_TM1, R_T, DISCOUNT_T, LOGITS_T, SELECTOR, 1.0)
    # targets (.5, .5, .5) against (0, 0, 0), and (-1, -1, -1) against (3, 0, 0)
    assert errors.tolist() == pytest.approx([0.5, (4 + 1 + 1) / 3])


LOSSES = {
    "categorical": lambda **t: categorical_td(support=SUPPORT, **t),
    "quantile": lambda **t: quantile_td(kappa=1.0, **t),
}


def arguments(loss: str) -> dict[str, torch.Tensor]:
    name = "logits" if loss == "categorical" else "quantiles"
    return {
        f"{name}_tm1": LOGITS_TM1.clone().requires_grad_(), f"{name}_t": LOGITS_T.clone().requires_grad_(),
        "a_tm1": A_TM1, "r_t": R_T, "discount_t": DISCOUNT_T, "q_t_selector": SELECTOR,
    }  # fmt: skip


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", ["a_tm1", "r_t", "discount_t", "q_t_selector"])
def test_wrong_shapes_are_refused_instead_of_broadcast(loss: str, name: str) -> None:
    given = arguments(loss)
    given[name] = given[name].unsqueeze(1)
    with pytest.raises(ValueError, match=f"{name} has shape"):
        LOSSES[loss](**given)


def test_targets_of_quantile_regression_get_no_gradient() -> None:
    quantiles, targets = (torch.tensor([[0.0, 1.0]], requires_grad=True) for _ in range(2))
    quantile_huber(quantiles, targets, 1.0).sum().backward()
    assert quantiles.grad is not None and targets.grad is None


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_reach_the_prediction_only_and_weights_scale_them(loss: str) -> None:
    gradients = []
    for weights in (torch.ones(2), torch.tensor([0.25, 1.0])):
        given = arguments(loss)
        losses, errors = LOSSES[loss](**given)
        assert not errors.requires_grad
        weighted_mean(losses, weights).backward()
        prediction, target = list(given.values())[:2]
        assert target.grad is None
        gradients.append(prediction.grad)
    assert gradients[0][0, 0].any() and not gradients[0][0, 1].any()  # of the action taken only
    assert torch.allclose(gradients[1], gradients[0] * torch.tensor([0.25, 1.0]).view(2, 1, 1))


HARD = {"target_update_tau": None, "target_update_period_updates": 2}
SHARED = {
    "double": (False, {"target_update_tau": 0.5}), "dueling": False,
    "target_update_tau": 0.5, "target_update_period_updates": (3, HARD),
    "final_learning_rate": (1e-5, {"final_learning_rate": 1e-3, "learning_rate_decay_env_steps": 300}),
    "learning_rate_decay_env_steps": (100, {"final_learning_rate": 1e-3, "learning_rate_decay_env_steps": 300}),
    "final_importance_beta": (0.5, {"importance_beta_env_steps": 300}), "importance_beta_env_steps": 300,
    "action_values": ("embedding_dot", {"action_values": "embedding_mlp", "item_embedding": "learnt"}),
    "embedding_size": (5, {"action_values": "embedding_dot", "item_embedding": "learnt"}),
    "item_hidden_size": (5, {"action_values": "embedding_mlp", "item_embedding": "learnt"}),
    "normalise_embeddings": (True, {"action_values": "embedding_dot", "item_embedding": "learnt"}),
}  # fmt: skip
ELSEWHERE = {
    "actor_priorities", "exploration", "epsilon_base", "epsilon_alpha", "epsilon_anneal_env_steps", "temperature",
    "evaluation_actions", "item_embedding",
}  # fmt: skip
"""Fields of the policy, the same code for all three, which whole runs of DQN show; see also test_item_values.py."""


def test_every_field_of_c51_matters() -> None:
    base = C51Config(target_update_tau=0.1, atoms=11, learning_rate=1e-2)
    every_field_matters(base, DISCRETE, {**SHARED, "atoms": 7, "v_min": -3.0, "v_max": 3.0}, ELSEWHERE)


def test_every_field_of_qr_dqn_matters() -> None:
    base = QRDQNConfig(target_update_tau=0.1, quantiles=6, learning_rate=1e-2)
    every_field_matters(base, DISCRETE, {**SHARED, "quantiles": 5, "kappa": 0.2}, ELSEWHERE)


def test_an_empty_support_is_refused_with_both_names() -> None:
    with pytest.raises(ValueError, match=r"v_min \(3.0\) is not below v_max \(3.0\)"):
        C51Config(target_update_tau=0.1, v_min=3.0, v_max=3.0)


ONE = Task(observation_dtype="float32", observation_shape=(1,), actions=DiscreteActions(2))


@pytest.mark.parametrize(
    "config",
    [
        DQNConfig(target_update_tau=1e-9, dueling=False, diagnose_every_updates=1),
        C51Config(target_update_tau=1e-9, dueling=False, diagnose_every_updates=1, atoms=9, v_min=0.0, v_max=8.0),
        QRDQNConfig(target_update_tau=1e-9, dueling=False, diagnose_every_updates=1, quantiles=3),
    ],
    ids=lambda config: config.type,
)
def test_diagnostics_by_hand(config: DQNConfig) -> None:
    """Online values are (2, 1), the target network's (3, 4), whatever is observed."""
    spec = spec_of(config, ONE)
    learner = config.make_learner(ONE, spec, seed=0, device="cpu")
    for network, values in ((learner._rule.online, (2, 1)), (learner._rule.target, (3, 4))):  # type: ignore[attr-defined]
        for parameter in network.parameters():
            torch.nn.init.zeros_(parameter)
        for action, value in enumerate(values):
            numbers = network.head.linear.bias.data.view(2, -1)[action]
            if config.type == "c51":
                numbers[value] = 100.0  # all mass on the atom of that value
            else:
                numbers[:] = value
    columns = random_columns(config, ONE, np.random.default_rng(0), 4)
    columns["action"][:] = [0, 0, 0, 1]
    columns["reward"][:] = [1.0, 1.0, 1.0, 2.0]
    columns["discount"][:] = [0.5, 0.5, 0.5, 0.0]
    learner.step(batch_of(spec, columns))
    measured = own_metrics(learner.take_metrics())
    # Double: the successor's action is 0, worth 3; targets 2.5, 2.5, 2.5, 2; taken 2, 2, 2, 1
    assert measured.pop("loss") >= 0.0
    assert measured == pytest.approx(
        {
            "q_mean": 1.75, "q_std": math.sqrt(3) / 4, "target_mean": 2.375, "target_std": math.sqrt(3) / 8,
            "bootstrap_mean": 3.0, "bootstrap_std": 0.0, "td_error": (3 * 0.5 + 1.0) / 4,
            "greedy_share": 0.75, "greedy_entropy": 0.0,
        },
        abs=1e-5,
    )  # fmt: skip


def test_the_entropy_of_choices() -> None:
    assert choice_entropy(torch.tensor([0, 2, 2, 0]), 5).item() == pytest.approx(math.log(2.0))
    assert choice_entropy(torch.tensor([4, 4, 4]), 5).item() == pytest.approx(0.0, abs=1e-6)
    assert choice_entropy(torch.tensor([0, 1, 1, 1]), 2).item() == pytest.approx(
        -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    )
