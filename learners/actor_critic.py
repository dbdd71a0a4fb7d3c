"""What learners of a deterministic actor and its critics have alike: settings and update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch
from msgspec import Meta
from torch import Tensor, nn

from learners.acting.exploration import geometric_sigmas
from learners.acting.noise import GaussianNoise, Noise, OrnsteinUhlenbeckNoise
from learners.algorithm import AlgorithmConfig, Positive, Rate, seeded
from learners.losses.actor_critic import (
    critic_losses,
    critic_td_errors,
    deterministic_policy_losses,
    pessimistic_target,
    smoothed,
)
from learners.losses.reductions import weighted_mean
from learners.networks.actor_critic import Actor, Critics
from learners.networks.torsos import make_encoder, make_torso
from learners.optimization.optimizers import Optimizer
from learners.optimization.targets import TargetUpdate
from learners.task import ContinuousActions, Task
from learners.update_rule import Updated, UpdateRule, spread

_SATURATED = 0.95  # of the half range: tanh's slope is below a tenth from here on


class ActorCriticConfig(AlgorithmConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of a deterministic actor with critics and of its exploration; noise is in shares of the half range."""

    actor_learning_rate: Annotated[
        Positive | None, Meta(description="Step size of the actor; null: learning_rate. Both follow its decay.")
    ] = None
    target_update_tau: Annotated[Rate, Meta(description="Soft target update rate per update of the targets.")] = 0.005
    final_layer_bound: Annotated[
        Positive | None, Meta(description="Last layers start in U(-x, x); null: like the other layers.")
    ] = None
    critic_products: Annotated[
        bool,
        Meta(description="Critics add the inner product of the action and a linear function of the observation."),
    ] = False
    sigma_low: Annotated[
        Positive, Meta(description="Noise of the least exploring environment, in half ranges of the action.")
    ] = 0.1
    sigma_high: Annotated[
        Positive, Meta(description="Noise of the most exploring environment, in half ranges of the action.")
    ] = 0.3
    noise: Annotated[
        Literal["gaussian", "ou"], Meta(description="Independent draws, or an Ornstein-Uhlenbeck process.")
    ] = "gaussian"
    ou_theta: Annotated[
        float, Meta(gt=0, le=1, description="Share of the noise that is forgotten each step (noise ou).")
    ] = 0.15
    random_env_steps: Annotated[
        int, Meta(ge=0, description="Transitions at the start of the run with uniform actions.")
    ] = 1_000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sigma_low > self.sigma_high:
            raise ValueError(f"sigma_low ({self.sigma_low}) is larger than sigma_high ({self.sigma_high})")
        if self.noise == "gaussian":
            self.refuse_idle("with noise gaussian", "ou_theta")

    def make_noise(self, env_indices: Sequence[int], total_envs: int) -> Noise:
        """The exploration noise of the environments at `env_indices` of the run's `total_envs`."""
        sigmas = geometric_sigmas(env_indices, total_envs, self.sigma_low, self.sigma_high)
        return GaussianNoise(sigmas) if self.noise == "gaussian" else OrnsteinUhlenbeckNoise(sigmas, self.ou_theta)

    def make_actor(self, task: Task, actions: ContinuousActions, generator: torch.Generator) -> Actor:
        """The actor of learner and policy."""
        return Actor(make_torso(self, task, generator), actions, generator, self.final_layer_bound)

    def make_critics(self, task: Task, actions: ContinuousActions, generator: torch.Generator, count: int) -> Critics:
        """The learner's critics."""
        return Critics(
            make_encoder(self, task, generator),
            actions,
            self,
            count=count,
            generator=generator,
            final_bound=self.final_layer_bound,
            products=self.critic_products,
        )


class ActorCriticRule(UpdateRule):
    """Critics step on the temporal-difference error, the actor up the first critic's gradient, then the targets move.

    Args:
        config: settings.
        task: observations.
        actions: bounds of the actor.
        seed: of first weights and noise.
        device: torch device.
        critics: how many; the target takes the least of them.
        actor_period: updates of the critics for one of the actor and the targets.
    """

    def __init__(
        self,
        config: ActorCriticConfig,
        task: Task,
        actions: ContinuousActions,
        *,
        seed: int,
        device: str,
        critics: int,
        actor_period: int,
    ) -> None:
        super().__init__()
        generator = seeded(seed)
        self.actor, self.target_actor = (config.make_actor(task, actions, generator).to(device) for _ in range(2))
        self.critics, self.target_critics = (
            config.make_critics(task, actions, generator, critics).to(device) for _ in range(2)
        )
        noise_seed = int(torch.randint(1 << 62, (), generator=generator))
        self.generator = seeded(noise_seed, device)
        self._actor_period = actor_period
        self._move_targets = TargetUpdate(
            (self.actor, self.target_actor), (self.critics, self.target_critics), tau=config.target_update_tau
        )
        self.optimizers = {
            "critics": Optimizer(self.critics, config),
            "actor": Optimizer(self.actor, config, learning_rate=config.actor_learning_rate),
        }

    @property
    def acting(self) -> nn.Module:
        """The actor."""
        return self.actor

    def steps(self, number: int) -> int:
        """The actor steps every `actor_period` updates; see UpdateRule.steps."""
        return 1 + (number % self._actor_period == 0)

    def action(self, t: Mapping[str, Tensor]) -> Tensor:
        """What was done, float32[B, n], of the records `t`."""
        return t["action"]

    def next_unit(self, t: Mapping[str, Tensor]) -> Tensor:
        """What the target networks would do next, float32[B, n] scaled to [-1, 1]."""
        return self.target_actor.unit(t["next_observation"])

    def smoothed_unit(self, t: Mapping[str, Tensor], sigma: float, clip: float) -> Tensor:
        """What the target actor would do next with clipped noise, float32[B, n] scaled to [-1, 1]."""
        unit = self.target_actor.unit(t["next_observation"])
        return smoothed(unit, self.normal(unit.shape, unit.device), sigma, clip)

    def penalty(self) -> Tensor | None:
        """Added to the critics' loss; a scalar [] or None."""
        return None

    def update(self, t: Mapping[str, Tensor], weights: Tensor, *, number: int, diagnose: bool) -> Updated:
        """One step of the critics and, every `actor_period` updates, of the actor; see UpdateRule.update."""
        with torch.no_grad():
            q_t = self.target_critics.of_unit(t["next_observation"], self.next_unit(t))
            target_tm1 = pessimistic_target(t["reward"], t["discount"], q_t)
        q_tm1 = self.critics(t["observation"], self.action(t))
        loss = weighted_mean(critic_losses(q_tm1, target_tm1), weights)
        penalty = self.penalty()
        self.optimizers["critics"].minimise(loss if penalty is None else loss + penalty)
        about_actor: dict[str, Tensor] = {}
        if number % self._actor_period == 0:
            about_actor = self.improve_actor(t["observation"], weights, diagnose=diagnose)
            self._move_targets(number)
        errors = critic_td_errors(q_tm1, target_tm1).abs_().mean(dim=0)
        if not diagnose:
            return Updated(errors)
        with torch.no_grad():
            about_values = spread(q=q_tm1, target=target_tm1, bootstrap=q_t.amin(dim=0))
            about_values |= {"loss": loss, "td_error": errors.mean()}
            return Updated(errors, about_values | about_actor)

    def improve_actor(self, observation: Tensor, weights: Tensor, *, diagnose: bool) -> dict[str, Tensor]:
        """One step of the actor up the first critic's values of records [B] that count as float[B] says; its
        diagnostics, of the actor before the step, when asked for.
        """
        unit = self.actor.unit(observation)
        q = self.critics.first_of_unit(observation, unit)
        self.optimizers["actor"].minimise(weighted_mean(deterministic_policy_losses(q), weights))
        if not diagnose:
            return {}
        with torch.no_grad():
            return spread(expected_value=q) | {
                "action_mean": unit.mean(),
                "action_std": unit.std(dim=0, correction=0).mean(),
                "action_saturation": (unit.abs() > _SATURATED).float().mean(),
            }
