"""Wolpertinger: TD3 or DDPG whose action is an item of a large catalogue (Dulac-Arnold et al. 2015)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from msgspec import Meta
from numpy.typing import NDArray
from torch import Tensor, nn

from learners.acting.noise import Noise, NoisyActions
from learners.actor_critic import ActorCriticRule
from learners.algorithm import Count
from learners.algorithms.td3 import TD3Config
from learners.catalogue.catalogue import Catalogue, Edition
from learners.catalogue.choice import SeenItems, best_of_nearest, seen_part
from learners.catalogue.distances import Metric
from learners.catalogue.neighbours import Search
from learners.gradient_learner import GradientLearner
from learners.networks.actor_critic import Actor, Critics
from learners.networks.torsos import Torso, make_torso
from learners.policies import Action, NetworkPolicy
from learners.task import ContinuousActions, DiscreteActions, Task
from learners.update_rule import Updated
from replay_server.errors import ConfigError
from replay_server.specs import Field, RecordSpec


class WolpertingerConfig(TD3Config, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of Wolpertinger. DDPG's update: critics 1, actor_period_updates 1, smoothing_sigma 0."""

    type: Annotated[str, Meta(description="Short name or module:Class of the algorithm.")] = "wolpertinger"
    critics: Annotated[Literal[1, 2], Meta(description="2: the target takes the lesser, as TD3; 1: as DDPG.")] = 2
    neighbours: Annotated[Count, Meta(description="Items near the proto-action that the critic scores again.")] = 20
    distance: Annotated[Metric, Meta(description="What near means.")] = "euclidean"
    search: Annotated[
        Search, Meta(description="exact, or a graph of faiss or usearch; on a GPU the learner's search is exact.")
    ] = "exact"
    unit_proto: Annotated[
        bool, Meta(description="Scale proto-actions to the mean length of the catalogue's embeddings.")
    ] = False
    drop_seen: Annotated[
        bool | None, Meta(description="Never choose an item that the observation's history names; null: where it does.")
    ] = None

    def record_fields(self, task: Task) -> tuple[Field, ...]:
        """The item that acted, as the action leaves out: its embedding or its id; and the embeddings' version."""
        version = Field("embedding_version", "int64")
        if isinstance(task.actions, DiscreteActions):
            return Field("item_embedding", "float32", (_embeddings(task).shape[1],)), version
        return Field("item_id", "int64"), version

    def make_learner(self, task: Task, spec: RecordSpec, *, seed: int, device: str) -> GradientLearner:
        """A fresh learner on a torch device (`cpu`, `cuda`)."""
        return GradientLearner(self, WolpertingerRule(self, task, seed=seed, device=device), spec, device)

    def make_policy(self, task: Task, *, env_indices: Sequence[int], total_envs: int) -> WolpertingerPolicy:
        """A policy with noise on the proto-action; its weights are zero until a snapshot is loaded."""
        return WolpertingerPolicy(self, task, self.make_noise(env_indices, total_envs))

    def make_catalogue(self, task: Task, device: str) -> Catalogue:
        """The task's items, searched on `device`.

        Raises:
            ConfigError: the task has no embeddings, or they do not fit its actions.
        """
        search: Search = self.search if torch.device(device).type == "cpu" else "exact"
        return Catalogue(_embeddings(task), distance=self.distance, search=search, device=device)

    def make_seen(self, task: Task, items: int) -> SeenItems | None:
        """What reads the items that must not be chosen; None where there are none.

        Raises:
            ConfigError: `drop_seen` is set and observations do not say what was seen, or that may be everything.
        """
        part = seen_part(task)
        if part is None and self.drop_seen is not None:
            raise ConfigError(
                f"algorithm.drop_seen is {str(self.drop_seen).lower()}, but the environment's observations have no "
                "history of item ids: drop the setting"
            )
        return None if part is None or self.drop_seen is False else SeenItems(part, items)

    def make_actor(self, task: Task, actions: ContinuousActions, generator: torch.Generator) -> Actor:
        """The actor of proto-actions."""
        length = float(np.linalg.norm(_embeddings(task), axis=1).mean()) if self.unit_proto else None
        return ProtoActor(make_torso(self, task, generator), actions, generator, self.final_layer_bound, length)


class ProtoActor(Actor):
    """An actor in the space of embeddings: within the box around the catalogue, or on a sphere of radius `length`."""

    def __init__(
        self,
        torso: Torso,
        actions: ContinuousActions,
        generator: torch.Generator,
        final_bound: float | None,
        length: float | None,
    ) -> None:
        super().__init__(torso, actions, generator, final_bound)
        self._length = length

    def forward(self, observation: Tensor) -> Tensor:
        """[B, *observation_shape] -> float32[B, d]."""
        return self._placed(super().unit(observation))

    def unit(self, observation: Tensor) -> Tensor:
        """The same as numbers whose box is [-1, 1], which a point of the sphere may leave; see Actor.unit."""
        unit = super().unit(observation)
        return unit if self._length is None else self.bounds.to_unit(self._placed(unit))

    def _placed(self, unit: Tensor) -> Tensor:
        proto = self.bounds.from_unit(unit)
        return proto if self._length is None else F.normalize(proto, dim=1) * self._length


class ActorWithCritics(nn.Module):
    """What acting needs: proto-actions, and values of items."""

    def __init__(self, actor: Actor, critics: Critics) -> None:
        super().__init__()
        self.actor = actor
        self.critics = critics


class WolpertingerRule(ActorCriticRule):
    """Critics learn on the embedding of the executed item; the target's action takes the whole way from proto-action
    to item through the target networks; the actor climbs the critic at its proto-action.

    Attributes:
        catalogue: the items; `catalogue.reindex` brings new embeddings in.
    """

    def __init__(self, config: WolpertingerConfig, task: Task, *, seed: int, device: str) -> None:
        self.catalogue = config.make_catalogue(task, device)
        bounds = self.catalogue.bounds()
        period = config.actor_period_updates
        super().__init__(config, task, bounds, seed=seed, device=device, critics=config.critics, actor_period=period)
        self._config = config
        self._executed = "item_embedding" if isinstance(task.actions, DiscreteActions) else "action"
        self._seen = config.make_seen(task, self.catalogue.size)

    @property
    def acting(self) -> nn.Module:
        """Actor and critics."""
        return ActorWithCritics(self.actor, self.critics)

    def action(self, t: Mapping[str, Tensor]) -> Tensor:
        """The embedding of the item that was executed, as it was then."""
        return t[self._executed]

    def next_unit(self, t: Mapping[str, Tensor]) -> Tensor:
        """`next_item`, scaled as its critics take it."""
        return self.target_critics.bounds.to_unit(self.next_item(t))

    def next_item(self, t: Mapping[str, Tensor]) -> Tensor:
        """The embedding of the item that the target networks would choose next, float32[B, d]."""
        config, edition, observation = self._config, self.catalogue.edition, t["next_observation"]
        unit = self.smoothed_unit(t, config.smoothing_sigma, config.smoothing_clip)
        proto = self.target_actor.bounds.from_unit(unit)
        seen = None if self._seen is None else self._seen(observation)
        ids = best_of_nearest(edition, self.target_critics, observation, proto, config.neighbours, seen)
        return edition.items[ids]

    def update(self, t: Mapping[str, Tensor], weights: Tensor, *, number: int, diagnose: bool) -> Updated:
        """See UpdateRule.update."""
        updated = super().update(t, weights, number=number, diagnose=diagnose)
        if not diagnose:
            return updated
        with torch.no_grad():
            edition, proto = self.catalogue.edition, self.actor(t["observation"])
            nearest = edition.items[edition.neighbours.search(proto, 1).squeeze(1)]
            about = {
                "stale_embeddings": (t["embedding_version"] != edition.version).float().mean(),
                "proto_distance": (proto - nearest).norm(dim=1).mean(),
            }
        return Updated(updated.errors, {**updated.diagnostics, **about})


class WolpertingerPolicy(NetworkPolicy[ActorWithCritics]):
    """Noise on the proto-action, then the best of its nearest items; uniform unseen items at the start of the run.

    `log_prob` is the probability of the item in the uniform phase; later it is the density of the noisy proto-action
    that led to the item, since the probability of an item is an integral over the proto-actions that lead to it.

    Attributes:
        catalogue: the items; `catalogue.reindex` brings new embeddings in.
    """

    def __init__(self, config: WolpertingerConfig, task: Task, noise: Noise) -> None:
        self.catalogue = config.make_catalogue(task, "cpu")
        bounds, generator = self.catalogue.bounds(), torch.Generator()
        actor = config.make_actor(task, bounds, generator)
        super().__init__(ActorWithCritics(actor, config.make_critics(task, bounds, generator, config.critics)))
        self._config = config
        self._noisy = NoisyActions(actor.bounds, noise)
        self._takes_ids = isinstance(task.actions, DiscreteActions)
        self._seen = config.make_seen(task, self.catalogue.size)

    def act(self, observation: NDArray[Any], rng: np.random.Generator, *, explore: bool, env_steps: int) -> Action:
        """Item ids int64[B], or their embeddings float32[B, d] where the environment takes a Box; see Policy.act."""
        edition, seen_by = self.catalogue.edition, torch.from_numpy(observation)
        seen = None if self._seen is None else self._seen(seen_by)
        if explore and env_steps < self._config.random_env_steps:
            return self._result(edition, *self._anything(len(observation), seen, rng))
        with torch.inference_mode():
            proto = self._network.actor(seen_by).numpy()
            log_prob = np.zeros(len(proto), dtype=np.float32)
            if explore:
                noisy = self._noisy.around(proto, rng)
                proto, log_prob = noisy.action, noisy.log_prob
            critics, k = self._network.critics, self._config.neighbours
            ids = best_of_nearest(edition, critics, seen_by, torch.from_numpy(proto), k, seen)
        return self._result(edition, ids.numpy(), log_prob)

    def _anything(
        self, batch: int, seen: Tensor | None, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Unseen items [B], each as likely as any other, and their log probability [B]."""
        size = self.catalogue.size
        ids = rng.integers(0, size, batch)
        unseen = np.full(batch, size)
        if seen is not None:
            taken = np.sort(seen.numpy(), axis=1)
            again = np.zeros_like(taken, dtype=np.bool_)
            again[:, 1:] = taken[:, 1:] == taken[:, :-1]
            unseen -= ((taken >= 0) & ~again).sum(axis=1)
            while (rows := (taken == ids[:, None]).any(axis=1)).any():
                ids[rows] = rng.integers(0, size, np.count_nonzero(rows))
        return ids, -np.log(unseen).astype(np.float32)

    def _result(self, edition: Edition, ids: NDArray[np.int64], log_prob: NDArray[np.float32]) -> Action:
        embeddings = edition.items.numpy()[ids]
        versions = np.full(len(ids), edition.version, dtype=np.int64)
        if self._takes_ids:
            return Action(ids, log_prob, {"item_embedding": embeddings, "embedding_version": versions})
        return Action(embeddings, log_prob, {"item_id": ids, "embedding_version": versions})


def _embeddings(task: Task) -> NDArray[np.float32]:
    """float32[N, d] of the task, checked against its actions."""
    if task.item_embeddings is None:
        raise ConfigError(
            "algorithm.type: wolpertinger chooses from a catalogue, and the environment gives no item embeddings; "
            "td3 takes a Box without a catalogue, dqn a Discrete space"
        )
    embeddings = np.asarray(task.item_embeddings, dtype=np.float32)
    if task.part("candidates") is not None:
        raise ConfigError("algorithm.type: wolpertinger searches the whole catalogue; with candidates use dqn")
    if task.part("action_mask") is not None:
        raise ConfigError("algorithm.type: wolpertinger may choose any item; with an action_mask use dqn")
    match task.actions:
        case DiscreteActions(count) if count == len(embeddings):
            return embeddings
        case ContinuousActions() if task.actions.size == embeddings.shape[1]:
            return embeddings
    raise ConfigError(
        f"algorithm.type: wolpertinger takes Discrete({len(embeddings)}) or a Box of {embeddings.shape[1]} numbers for "
        f"item embeddings of shape {list(embeddings.shape)}; the environment's actions are {task.actions}"
    )
