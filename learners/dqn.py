"""Deep Q-networks: Double, dueling, n-step, prioritized (Mnih et al. 2015; van Hasselt et al. 2016; Wang et al. 2016).

The n-step sum and the discount gamma^n x (1 - terminated) come with each record, so one loss serves every n.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import torch
from msgspec import Meta
from numpy.typing import NDArray
from torch import Tensor

from learners.exploration import annealed, ape_x_epsilons
from learners.learner import StepOutput
from learners.losses import huber, q_learning_td_error, squared, weighted_mean
from learners.networks import QNetwork
from learners.policies import Action
from learners.staging import Staging
from learners.task import Task
from learners.weights import WeightSnapshot
from replay_server.batches import SampleBatch, importance_weights
from replay_server.errors import Diverged
from replay_server.specs import RecordSpec

Positive = Annotated[float, Meta(gt=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=1)]
Sizes = Annotated[tuple[Count, ...], Meta(min_length=1)]


class DQNConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the DQN family; all step counts are environment transitions unless the name says updates."""

    type: Annotated[str, Meta(description="Short name or module:Class of the algorithm.")] = "dqn"
    gamma: Annotated[float, Meta(gt=0, le=1, description="Discount per environment step.")] = 0.99
    n_step: Annotated[int, Meta(ge=1, description="Steps summed into one reward.")] = 3
    reward_scale: Annotated[float, Meta(gt=0, description="Factor on rewards before storing; aim at |Q| < 10.")] = 1.0
    double: Annotated[bool, Meta(description="Select the successor's action with the online network.")] = True
    dueling: Annotated[bool, Meta(description="Split values into state value and advantages.")] = True
    hidden_sizes: Annotated[Sizes, Meta(description="Units of each hidden layer.")] = (128, 128)
    batch_size: Annotated[int, Meta(ge=1, description="Records per update.")] = 128
    learning_rate: Annotated[float, Meta(gt=0, description="Adam's step size at the start.")] = 1e-3
    final_learning_rate: Annotated[
        Positive | None, Meta(description="Step size at the end of the decay; null keeps it constant.")
    ] = None
    learning_rate_decay_env_steps: Annotated[
        Count | None, Meta(description="Transitions over which the step size falls linearly.")
    ] = None
    loss: Annotated[Literal["huber", "mse"], Meta(description="Loss of the temporal-difference error.")] = "huber"
    huber_delta: Annotated[float, Meta(gt=0, description="Error where the Huber loss turns linear.")] = 1.0
    target_update_tau: Annotated[
        Annotated[float, Meta(gt=0, le=1)] | None, Meta(description="Soft target update rate per update.")
    ] = None
    target_update_period_updates: Annotated[
        Count | None, Meta(description="Hard target update every so many learner updates.")
    ] = None
    max_grad_norm: Annotated[float, Meta(gt=0, description="Gradients are scaled down to this global norm.")] = 10.0
    importance_beta: Annotated[Fraction, Meta(description="Importance-sampling exponent at the start.")] = 0.4
    final_importance_beta: Annotated[Fraction, Meta(description="Importance-sampling exponent at the end.")] = 1.0
    importance_beta_env_steps: Annotated[
        int, Meta(ge=1, description="Transitions over which the exponent moves linearly.")
    ] = 100_000
    priority_epsilon: Annotated[float, Meta(gt=0, description="Added to |error| so that no record dies out.")] = 1e-6
    actor_priorities: Annotated[
        bool, Meta(description="Actors compute first priorities; otherwise the table's largest is taken.")
    ] = True
    epsilon_base: Annotated[float, Meta(gt=0, le=1, description="Epsilon of the most exploring environment.")] = 0.4
    epsilon_alpha: Annotated[float, Meta(ge=0, description="Spread of epsilons over environments.")] = 7.0
    epsilon_anneal_env_steps: Annotated[
        int, Meta(ge=0, description="Transitions over which everyone's exploration falls from 1 to its own epsilon.")
    ] = 10_000

    def __post_init__(self) -> None:
        if (self.target_update_tau is None) == (self.target_update_period_updates is None):
            raise ValueError("set exactly one of target_update_tau (soft) and target_update_period_updates (hard)")
        if (self.final_learning_rate is None) != (self.learning_rate_decay_env_steps is None):
            raise ValueError("final_learning_rate and learning_rate_decay_env_steps go together: set both or neither")

    def make_learner(self, task: Task, spec: RecordSpec, *, seed: int, device: str) -> DQNLearner:
        """A fresh learner on a torch device (`cpu`, `cuda`)."""
        return DQNLearner(self, task, spec, seed=seed, device=torch.device(device))

    def make_policy(self, task: Task, *, env_indices: Sequence[int], total_envs: int) -> DQNPolicy:
        """An epsilon-greedy policy; its weights are zero until a snapshot is loaded."""
        return DQNPolicy(self, task, ape_x_epsilons(env_indices, total_envs, self.epsilon_base, self.epsilon_alpha))

    def make_network(self, task: Task, generator: torch.Generator) -> QNetwork:
        """The Q-network of learner and policy."""
        return QNetwork(task, self.hidden_sizes, self.dueling, generator)


def _linear(start: float, end: float, position: float) -> float:
    return start + (end - start) * min(max(position, 0.0), 1.0)


class DQNLearner:
    """Online and target networks with Adam; one call of `step` is one update."""

    def __init__(self, config: DQNConfig, task: Task, spec: RecordSpec, *, seed: int, device: torch.device) -> None:
        self._config = config
        self._device = device
        generator = torch.Generator().manual_seed(seed)
        self._online = config.make_network(task, generator).to(device)
        self._target = config.make_network(task, generator).to(device)
        self._target.load_state_dict(self._online.state_dict())
        self._target.requires_grad_(False)
        self._parameters: list[Tensor] = list(self._online.parameters())
        self._target_parameters: list[Tensor] = list(self._target.parameters())
        self._optimizer = torch.optim.Adam(self._parameters, lr=config.learning_rate, fused=True)
        self._staging = Staging(spec, device)
        self._updates = 0
        self._version = 0

    @property
    def updates(self) -> int:
        """Updates made."""
        return self._updates

    def step(self, batch: SampleBatch) -> StepOutput:
        """One update from B records.

        Raises:
            Diverged: an error is not finite; the networks keep the values before this update.
        """
        config = self._config
        t = self._staging(batch)
        beta = _linear(
            config.importance_beta, config.final_importance_beta, batch.inserted / config.importance_beta_env_steps
        )
        weights = torch.from_numpy(importance_weights(batch, beta)).to(self._device, non_blocking=True)
        q_tm1 = self._online(t["observation"])
        with torch.no_grad():
            q_t = self._target(t["next_observation"])
            q_t_selector = self._online(t["next_observation"]) if config.double else q_t
        r_t = t["reward"] * self._online.reward_scale
        td_error = q_learning_td_error(q_tm1, t["action"], r_t, t["discount"], q_t, q_t_selector)
        losses = huber(td_error, config.huber_delta) if config.loss == "huber" else squared(td_error)
        loss = weighted_mean(losses, weights)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        gradient_norm = torch.nn.utils.clip_grad_norm_(self._parameters, config.max_grad_norm, foreach=True)
        with torch.no_grad():
            scalars = torch.stack((loss, q_tm1.mean(), gradient_norm))
            values = torch.cat((td_error.abs(), scalars)).cpu().double().numpy()  # the step's only wait for the device
        if not np.isfinite(values).all():
            raise Diverged(
                f"update {self._updates + 1}: loss, value or gradient is not finite; lower algorithm.learning_rate or "
                "algorithm.reward_scale, or look at the environment's rewards"
            )
        self._apply(batch.inserted)
        metrics = {"loss": values[-3], "q_mean": values[-2], "gradient_norm": values[-1], "importance_beta": beta}
        metrics["td_error"] = float(values[:-3].mean())
        return StepOutput(values[:-3] + config.priority_epsilon, {name: float(v) for name, v in metrics.items()})

    def _apply(self, inserted: int) -> None:
        config = self._config
        if config.final_learning_rate is not None and config.learning_rate_decay_env_steps is not None:
            position = inserted / config.learning_rate_decay_env_steps
            rate = _linear(config.learning_rate, config.final_learning_rate, position)
            self._optimizer.param_groups[0]["lr"] = rate
        self._optimizer.step()
        self._updates += 1
        with torch.no_grad():
            if config.target_update_tau is not None:
                torch._foreach_lerp_(self._target_parameters, self._parameters, config.target_update_tau)
            elif config.target_update_period_updates and self._updates % config.target_update_period_updates == 0:
                torch._foreach_copy_(self._target_parameters, self._parameters)

    def set_moments(self, moments: Mapping[str, NDArray[Any]]) -> None:
        """Use new running moments: `observation_mean`, `observation_std` [size] and `return_std` [], each optional."""
        for network in (self._online, self._target):
            if "observation_mean" in moments:
                network.standardise.set_moments(
                    torch.as_tensor(moments["observation_mean"], dtype=torch.float32).flatten(),
                    torch.as_tensor(moments["observation_std"], dtype=torch.float32).flatten(),
                )
            if "return_std" in moments:
                network.reward_scale.fill_(1.0 / max(float(moments["return_std"]), 1e-4))

    def snapshot(self) -> WeightSnapshot:
        """The online network as the next version."""
        self._version += 1
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in self._online.state_dict().items()}
        return WeightSnapshot.of(self._version, arrays)

    def state_dict(self) -> dict[str, Tensor]:
        """Networks, optimizer and counters as named tensors."""
        state = {f"online.{name}": tensor for name, tensor in self._online.state_dict().items()}
        state |= {f"target.{name}": tensor for name, tensor in self._target.state_dict().items()}
        for name, parameter in self._online.named_parameters():
            for key, value in self._optimizer.state.get(parameter, {}).items():
                state[f"adam.{name}.{key}"] = value
        state["counters"] = torch.tensor([self._updates, self._version], dtype=torch.int64)
        return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state_dict` bit for bit."""
        for prefix, network in (("online.", self._online), ("target.", self._target)):
            network.load_state_dict({n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)})
        for name, parameter in self._online.named_parameters():
            prefix = f"adam.{name}."
            slots = {n.removeprefix(prefix): v.clone() for n, v in state.items() if n.startswith(prefix)}
            if slots:
                self._optimizer.state[parameter] = {
                    k: v if k == "step" else v.to(self._device) for k, v in slots.items()
                }
        self._updates, self._version = (int(n) for n in state["counters"])


class DQNPolicy:
    """Epsilon-greedy over a Q-network on the CPU."""

    def __init__(self, config: DQNConfig, task: Task, epsilons: NDArray[np.float64]) -> None:
        self._config = config
        self._num_actions = task.num_actions
        self._epsilons = epsilons
        self._network = config.make_network(task, torch.Generator())
        self._network.requires_grad_(False)
        self._version = 0

    @property
    def version(self) -> int:
        """Version of the weights in use; 0 before the first load."""
        return self._version

    def act(self, observation: NDArray[Any], rng: np.random.Generator, *, explore: bool, env_steps: int) -> Action:
        """Greedy actions, with each environment's own epsilon when exploring; see Policy.act."""
        with torch.inference_mode():
            greedy = self._network(torch.from_numpy(observation)).argmax(dim=1).numpy()
        batch = len(greedy)
        if not explore:
            return Action(greedy, np.zeros(batch, dtype=np.float32))
        epsilon = annealed(self._epsilons, env_steps, self._config.epsilon_anneal_env_steps)
        draws = rng.random((2, batch))
        anything = (draws[1] * self._num_actions).astype(np.int64)
        action = np.where(draws[0] < epsilon, anything, greedy)
        probability = epsilon / self._num_actions + (1.0 - epsilon) * (action == greedy)
        return Action(action, np.log(probability).astype(np.float32))

    def initial_priorities(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64] | None:
        """|error| of fresh records under the acting network (Horgan et al. 2018, section 3); float64[B]."""
        if not self._config.actor_priorities:
            return None
        with torch.inference_mode():
            q_tm1 = self._network(torch.from_numpy(np.ascontiguousarray(columns["observation"])))
            q_t = self._network(torch.from_numpy(np.ascontiguousarray(columns["next_observation"])))
            r_t = torch.from_numpy(columns["reward"]) * self._network.reward_scale
            a_tm1 = torch.from_numpy(columns["action"])
            error = q_learning_td_error(q_tm1, a_tm1, r_t, torch.from_numpy(columns["discount"]), q_t, q_t)
        return error.abs().double().numpy() + self._config.priority_epsilon

    def load(self, snapshot: WeightSnapshot) -> None:
        """Copy a snapshot's weights in."""
        state = {name: torch.from_numpy(array.copy()) for name, array in snapshot.arrays().items()}
        self._network.load_state_dict(state)
        self._version = snapshot.version
