"""Bugs found in public implementations of these algorithms, and which of our tests would catch each."""

from __future__ import annotations

import ast
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kit.devices import algorithm_configs, tasks_of, variants
from kit.learning import trained

from learners.algorithm import AlgorithmConfig
from learners.task import Task

TESTS = Path(__file__).resolve().parents[1]
CONFIGS = algorithm_configs()
WITHOUT_TARGETS = {"behaviour_cloning", "reinforce"}

CAUGHT_BY = {
    "clip_grad_norm_(parameters, -1, 1) turns every actor's gradient round": (
        "unit/test_actor_critic.py::test_one_step_of_the_actor_raises_the_value_of_a_frozen_critic",
        "unit/test_bcq.py::test_one_step_of_the_perturbation_raises_the_value_of_a_frozen_critic",
        "unit/test_optimizers.py::test_gradients_are_scaled_down_to_the_norm_and_never_turned_round",
    ),
    "a target network stays as it began": (
        "unit/test_public_bugs.py::test_every_target_network_moves",
        "unit/test_actor_critic.py::test_every_target_network_moves_by_tau",
        "unit/test_bcq.py::test_every_network_learns_and_every_target_moves_by_tau",
        "unit/test_dqn.py::test_soft_updates_move_every_target_tensor_by_tau",
    ),
    "rewards [B, 1] times targets [B] make a matrix": (
        "unit/test_losses.py::test_column_vectors_are_refused_instead_of_broadcast",
        "unit/test_actor_critic.py::test_columns_of_other_shapes_are_refused_before_they_broadcast",
        "unit/test_distributional.py::test_wrong_shapes_are_refused_instead_of_broadcast",
        "unit/test_bcq.py::test_other_shapes_are_refused",
        "unit/test_slates.py::test_wrong_shapes_are_refused",
    ),
    "one target critic is used twice, and the second never learns": (
        "unit/test_bcq.py::test_both_target_critics_make_the_target_and_no_gradient_flows_through_it",
        "unit/test_actor_critic.py::test_the_target_is_the_lesser_of_both_critics_and_both_learn",
    ),
    "REINFORCE off policy draws its actions anew, caps nothing, and lets gradients through its weights": (
        "unit/test_reinforce.py::test_top_k_fixed_points",
        "unit/test_reinforce.py::test_off_policy_fixed_points",
        "unit/test_reinforce.py::test_ratios_are_of_the_logged_actions",
        "unit/test_softmax_losses.py::test_ratios_are_those_of_the_logged_actions_capped_and_detached",
    ),
    "a ratio clamped inside the exponent has no gradient where it is capped": (
        "unit/test_softmax_losses.py::test_gradient_of_the_loss_is_the_weight_also_where_it_is_capped",
        "unit/test_golden_policy_gradient.py::test_policy_gradient_with_capped_importance_ratios",
    ),
    "mini-batches are taken for the steps of an episode": (
        "unit/test_accumulators.py::test_whole_episodes_table",
        "unit/test_golden_value_learning.py::test_whole_episode_records",
    ),
    "log probabilities are gathered as [B, B]": ("unit/test_softmax_losses.py::test_a_gather_of_b_by_b_is_refused",),
    "the behaviour model is trained by the policy's loss": (
        "unit/test_reinforce.py::test_no_gradient_of_the_policy_loss_reaches_the_head_and_none_of_the_head_s_the_state",
        "unit/test_reinforce.py::test_the_behaviour_head_learns_what_was_logged_and_nothing_else_moves_it",
    ),
    "sampled softmax without its correction": (
        "unit/test_golden_policy_gradient.py::test_sampled_softmax",
        "unit/test_softmax_losses.py::test_sampled_normaliser_and_gradient_are_right_on_average",
    ),
    "no discount, and values beyond the end of an episode": (
        "unit/test_value_chains.py::test_the_values_of_a_chain_converge_to_the_optimum",
        "unit/test_golden_value_learning.py::test_n_step_records",
    ),
    "a time limit counts as an end": ("unit/test_accumulators.py::test_termination_and_truncation_table",),
    "the successor of a last step is the next episode's first": (
        "unit/test_vector_steps.py::test_no_transition_crosses_a_reset",
    ),
    "importance weights are left out of the Huber loss": (
        "unit/test_losses.py::test_importance_weights_change_the_gradient_of_every_loss",
        "unit/test_golden_value_learning.py::test_weighted_double_q_learning",
    ),
    "random numbers come from the global generator": (
        "unit/test_public_bugs.py::test_global_generators_are_left_alone",
        "unit/test_public_bugs.py::test_a_seed_decides_everything",
    ),
    "a new record's priority takes the exponent twice": (
        "unit/test_table.py::test_priorities_of_new_records_are_in_the_units_of_the_others",
    ),
    "a priority reaches the record that took the slot": (
        "unit/test_table.py::test_a_key_does_not_reach_the_record_that_took_its_slot",
    ),
}


def test_every_test_named_is_there() -> None:
    for bug, names in CAUGHT_BY.items():
        for name in names:
            path, _, function = name.partition("::")
            tree = ast.parse((TESTS / path).read_text())
            found = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
            assert function in found, f"{bug}: no {name}"


def smallest(name: str) -> tuple[AlgorithmConfig, Task]:
    """An algorithm's smallest config and the first task it takes."""
    config = next(iter(variants(CONFIGS[name])))
    return config, tasks_of(config)[0]


@pytest.mark.parametrize("name", CONFIGS)
def test_every_target_network_moves(name: str) -> None:
    config, task = smallest(name)
    before, after = (trained(config, task, updates=updates)[0] for updates in (0, 4))
    targets = [key for key in before if "target" in key and "normaliser" not in key]
    assert bool(targets) == (name not in WITHOUT_TARGETS)
    still = [key for key in targets if torch.equal(before[key], after[key])]
    assert not still


@pytest.mark.parametrize("name", CONFIGS)
def test_global_generators_are_left_alone(name: str) -> None:
    config, task = smallest(name)
    before = _global_states()
    trained(config, task)
    assert before == _global_states()


@pytest.mark.parametrize("name", CONFIGS)
def test_a_seed_decides_everything(name: str) -> None:
    config, task = smallest(name)
    one, same, other = (trained(config, task, seed=seed)[0] for seed in (0, 0, 1))
    assert all(torch.equal(value, same[key]) for key, value in one.items())
    assert any(not torch.equal(value, other[key]) for key, value in one.items())


def _global_states() -> Any:
    numpy = np.random.get_state(legacy=False)  # noqa: NPY002, what is looked at is the global one
    return random.getstate(), repr(numpy), torch.get_rng_state().tolist()
