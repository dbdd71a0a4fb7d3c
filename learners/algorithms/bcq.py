"""Batch-constrained Q-learning of continuous actions (Fujimoto, Meger and Precup 2019).

Only actions like those in the data are valued and taken: samples of a variational auto-encoder of the behaviour, each
moved by a small learnt perturbation. So no value is built on actions that nobody ever tried.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from msgspec import Meta
from numpy.typing import NDArray
from torch import Tensor, nn

from learners.acting.noise import GaussianNoise, NoisyActions
from learners.algorithm import AlgorithmConfig, Count, Fraction, Positive, Rate, Sizes, seeded
from learners.gradient_learner import GradientLearner
from learners.losses.actor_critic import bootstrapped, critic_losses, critic_td_errors, soft_clipped_values
from learners.losses.cloning import gaussian_kl, squared_distances
from learners.losses.reductions import weighted_mean
from learners.networks.actor_critic import Critics
from learners.networks.torsos import make_encoder
from learners.networks.vae import ActionEncoder, CandidateActor, JoinedNetwork
from learners.optimization.optimizers import Optimizer
from learners.optimization.targets import TargetUpdate
from learners.policies import Action, NetworkPolicy
from learners.task import Task
from learners.update_rule import Updated, UpdateRule, spread
from replay_server.specs import RecordSpec


class BCQConfig(AlgorithmConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of BCQ; actions are in half ranges of each dimension throughout."""

    type: Annotated[str, Meta(description="Short name or module:Class of the algorithm.")] = "bcq"
    target_update_tau: Annotated[Rate, Meta(description="Soft target update rate per update.")] = 0.005
    vae_hidden_sizes: Annotated[Sizes, Meta(description="Units of each hidden layer of encoder and decoder.")] = (
        750,
        750,
    )
    vae_learning_rate: Annotated[
        Positive | None, Meta(description="Step size of the auto-encoder; null: learning_rate. Both follow its decay.")
    ] = None
    latent_size: Annotated[
        Count | None, Meta(description="Dimensions of the auto-encoder's latent; null: twice those of an action.")
    ] = None
    latent_clip: Annotated[Positive, Meta(description="Latents are drawn from N(0, 1) cut to this size.")] = 0.5
    kl_weight: Annotated[float, Meta(ge=0, description="Factor of the divergence in the auto-encoder's loss.")] = 0.5
    phi: Annotated[float, Meta(ge=0, description="Largest perturbation of a decoded action, in half ranges.")] = 0.05
    candidates: Annotated[Count, Meta(description="Actions sampled for each successor; its value is the best's.")] = 10
    acting_candidates: Annotated[Count, Meta(description="Actions sampled for each decision.")] = 100
    minimum_weight: Annotated[
        Fraction,
        Meta(description="Weight lambda of the lesser critic in a candidate's value, 1 - lambda of the other."),
    ] = 0.75
    sigma: Annotated[
        Positive, Meta(description="Noise of actors that go on from the data online, in half ranges of the action.")
    ] = 0.1

    def make_learner(self, task: Task, spec: RecordSpec, *, seed: int, device: str) -> GradientLearner:
        """A fresh learner on a torch device (`cpu`, `cuda`)."""
        return GradientLearner(self, BCQRule(self, task, seed=seed, device=device), spec, device)

    def make_policy(self, task: Task, *, env_indices: Sequence[int], total_envs: int) -> BCQPolicy:
        """Acts with the best of many candidates; its weights are zero until a snapshot is loaded."""
        noise = GaussianNoise(np.full(len(env_indices), self.sigma))
        return BCQPolicy(self, self.make_actor(task, torch.Generator()), noise, self.latents(task))

    def latents(self, task: Task) -> int:
        """Dimensions of a latent."""
        return self.latent_size or 2 * task.continuous("bcq").size

    def make_actor(self, task: Task, generator: torch.Generator) -> CandidateActor:
        """Everything that acting takes."""
        actions = task.continuous("bcq")
        decoder = self._joined(task, self.latents(task), self.vae_hidden_sizes, generator)
        perturbation = self._joined(task, actions.size, self.hidden_sizes, generator)
        critics = Critics(make_encoder(self, task, generator), actions, self, count=2, generator=generator)
        return CandidateActor(actions, decoder, perturbation, critics, self.phi)

    def make_encoder(self, task: Task, generator: torch.Generator) -> ActionEncoder:
        """The other half of the auto-encoder."""
        size, encoder = task.continuous("bcq").size, make_encoder(self, task, generator)
        return ActionEncoder(encoder, size, self.vae_hidden_sizes, self.latents(task), self.activation, generator)

    def _joined(self, task: Task, inputs: int, sizes: tuple[int, ...], generator: torch.Generator) -> JoinedNetwork:
        encoder = make_encoder(self, task, generator)
        return JoinedNetwork(encoder, inputs, task.continuous("bcq").size, sizes, self.activation, generator)


class BCQRule(UpdateRule):
    """Auto-encoder, two critics with soft clipped targets over candidates, perturbation up the first critic."""

    def __init__(self, config: BCQConfig, task: Task, *, seed: int, device: str) -> None:
        super().__init__()
        self._config = config
        self._latents = config.latents(task)
        generator = seeded(seed)
        self.actor = config.make_actor(task, generator).to(device)
        target = config.make_actor(task, generator).to(device)
        self.target_critics, self.target_perturbation = target.critics, target.perturbation
        self.encoder = config.make_encoder(task, generator).to(device)
        self.generator = seeded(int(torch.randint(1 << 62, (), generator=generator)), device)
        self._move_targets = TargetUpdate(
            (self.actor.critics, self.target_critics),
            (self.actor.perturbation, self.target_perturbation),
            tau=config.target_update_tau,
        )
        auto_encoder = nn.ModuleDict({"encoder": self.encoder, "decoder": self.actor.decoder})
        self.optimizers = {
            "vae": Optimizer(auto_encoder, config, learning_rate=config.vae_learning_rate),
            "critics": Optimizer(self.actor.critics, config),
            "perturbation": Optimizer(self.actor.perturbation, config),
        }

    @property
    def acting(self) -> nn.Module:
        """Decoder, perturbation and critics."""
        return self.actor

    def update(self, t: Mapping[str, Tensor], weights: Tensor, *, number: int, diagnose: bool) -> Updated:
        """One step of the auto-encoder, the critics and the perturbation, then the targets; see UpdateRule.update."""
        about_vae = self._clone(t, weights, diagnose=diagnose)
        with torch.no_grad():
            bootstrap = self.successor_values(t["next_observation"])
            target_tm1 = bootstrapped(t["reward"], t["discount"], bootstrap)
        q_tm1 = self.actor.critics(t["observation"], t["action"])
        loss = weighted_mean(critic_losses(q_tm1, target_tm1), weights)
        self.optimizers["critics"].minimise(loss)
        about_actor = self.improve_perturbation(t["observation"], weights, diagnose=diagnose)
        self._move_targets(number)
        with torch.no_grad():
            errors = critic_td_errors(q_tm1, target_tm1).abs().mean(dim=0)
            if not diagnose:
                return Updated(errors)
            about_values = spread(q=q_tm1, target=target_tm1, bootstrap=bootstrap)
            about_values |= {"loss": loss, "td_error": errors.mean()}
            return Updated(errors, about_values | about_vae | about_actor)

    def successor_values(self, observation: Tensor) -> Tensor:
        """Value of the best of several candidates, float[B]; both target critics have their say."""
        count = self._config.candidates
        decoded = self.actor.decoder(observation, self._draw(len(observation), count))
        unit = self.actor.perturbed(observation, decoded, self.target_perturbation)
        action = self.actor.bounds.from_unit(unit).flatten(0, 1)
        q_t = self.target_critics(observation.repeat_interleave(count, dim=0), action).view(2, -1, count)
        return soft_clipped_values(q_t, self._config.minimum_weight)

    def improve_perturbation(self, observation: Tensor, weights: Tensor, *, diagnose: bool) -> dict[str, Tensor]:
        """One step of the perturbation up the first critic's values, from actions as the data have them; its
        diagnostics when asked for.
        """
        with torch.no_grad():
            decoded = self.actor.decoder(observation, self._draw(len(observation), 1))
        unit = self.actor.perturbed(observation, decoded, self.actor.perturbation)
        q = self.actor.critics.first(observation, self.actor.bounds.from_unit(unit.squeeze(1)))
        self.optimizers["perturbation"].minimise(weighted_mean(-q, weights))
        if not diagnose:
            return {}
        return spread(expected_value=q) | {
            "action_mean": unit.mean(),
            "action_std": unit.std(dim=0, correction=0).mean(),
            "perturbation": (unit - decoded).abs().mean(),
        }

    def _clone(self, t: Mapping[str, Tensor], weights: Tensor, *, diagnose: bool) -> dict[str, Tensor]:
        """One step of the auto-encoder on the actions taken; its diagnostics when asked for."""
        observation, action = t["observation"], self.actor.bounds.to_unit(t["action"])
        mean, log_std = self.encoder(observation, action)
        latent = mean + log_std.exp() * self.normal(mean.shape, mean.device)
        reconstruction = squared_distances(self.actor.decoder(observation, latent.unsqueeze(1)).squeeze(1), action)
        divergence = gaussian_kl(mean, log_std)
        loss = weighted_mean(reconstruction + self._config.kl_weight * divergence, weights)
        self.optimizers["vae"].minimise(loss)
        if not diagnose:
            return {}
        return {
            "vae_loss": loss,
            "vae_reconstruction": reconstruction.mean(),
            "vae_divergence": divergence.mean(),
        }

    def _draw(self, batch: int, count: int) -> Tensor:
        latents = self.normal((batch, count, self._latents), self.actor.bounds.low.device)
        return latents.clamp(-self._config.latent_clip, self._config.latent_clip)


class BCQPolicy(NetworkPolicy[CandidateActor]):
    """The best of many sampled candidates; with Gaussian noise around it when exploring."""

    def __init__(self, config: BCQConfig, actor: CandidateActor, noise: GaussianNoise, latents: int) -> None:
        super().__init__(actor)
        self._config = config
        self._noisy = NoisyActions(actor.bounds, noise)
        self._latents = latents

    def act(self, observation: NDArray[Any], rng: np.random.Generator, *, explore: bool, env_steps: int) -> Action:
        """Actions float32[B, n]; `log_prob` is that of the noise around the candidate chosen. See Policy.act."""
        config = self._config
        latents = rng.standard_normal((len(observation), config.acting_candidates, self._latents), dtype=np.float32)
        latents = latents.clip(-config.latent_clip, config.latent_clip)
        with torch.inference_mode():
            best = self._network(torch.from_numpy(observation), torch.from_numpy(latents)).numpy()
        if explore:
            return self._noisy.around(best, rng)
        return Action(best, np.zeros(len(best), dtype=np.float32))
