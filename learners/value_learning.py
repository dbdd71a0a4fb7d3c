"""What algorithms that learn action values have alike: settings and update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Literal

import torch
from msgspec import Meta
from torch import Tensor, nn

from learners.acting.list_policy import ListPolicy
from learners.acting.value_policy import ValuePolicy
from learners.algorithm import AlgorithmConfig, Count, Rate, seeded
from learners.gradient_learner import GradientLearner
from learners.logged_choices import one_choice
from learners.losses.lists import best_items, list_losses
from learners.losses.reductions import weighted_mean
from learners.networks.heads import ActionHead, EmbeddingDotHead, EmbeddingMLPHead
from learners.networks.item_table import make_items
from learners.networks.offers import Offers
from learners.networks.q_network import Head, QNetwork, ReturnModel
from learners.networks.torsos import make_torso
from learners.optimization.optimizers import Optimizer
from learners.optimization.targets import TargetUpdate
from learners.policies import Policy
from learners.task import SlateActions, Task
from learners.update_rule import Updated, UpdateRule, spread
from replay_server.errors import ConfigError
from replay_server.specs import RecordSpec


class ValueConfig(AlgorithmConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of DQN and its distributional relatives."""

    type: str
    n_step: Annotated[Count, Meta(description="Steps summed into one reward.")] = 3
    double: Annotated[bool, Meta(description="Select the successor's action with the online network.")] = True
    dueling: Annotated[bool, Meta(description="Split values into state value and advantages.")] = True
    target_update_tau: Annotated[Rate | None, Meta(description="Soft target update rate per update.")] = None
    target_update_period_updates: Annotated[
        Count | None, Meta(description="Hard target update every so many learner updates.")
    ] = None
    actor_priorities: Annotated[
        bool, Meta(description="Actors compute first priorities; otherwise the table's largest is taken.")
    ] = True
    exploration: Annotated[
        Literal["epsilon", "boltzmann"],
        Meta(description="epsilon: now and then any action; boltzmann: drawn from softmax(Q / temperature)."),
    ] = "epsilon"
    epsilon_base: Annotated[float, Meta(gt=0, le=1, description="Epsilon of the most exploring environment.")] = 0.4
    epsilon_alpha: Annotated[float, Meta(ge=0, description="Spread of epsilons over environments.")] = 7.0
    epsilon_anneal_env_steps: Annotated[
        int, Meta(ge=0, description="Transitions over which everyone's exploration falls from 1 to its own epsilon.")
    ] = 10_000
    temperature: Annotated[
        float, Meta(gt=0, description="Of exploration boltzmann, in units of the scaled reward.")
    ] = 0.1
    evaluation_actions: Annotated[
        Literal["greedy", "sampled"], Meta(description="Evaluation takes the best action, or draws as boltzmann does.")
    ] = "greedy"
    action_values: Annotated[
        Literal["heads", "embedding_mlp", "embedding_dot"],
        Meta(description="One output an action, MLP([features, item]), or features times item embedding."),
    ] = "heads"
    item_embedding: Annotated[
        Literal["fixed", "learnt"],
        Meta(description="Keep the environment's item embeddings, or train a table that starts from them."),
    ] = "fixed"
    item_hidden_size: Annotated[int, Meta(ge=1, description="Hidden units of embedding_mlp.")] = 64
    normalise_embeddings: Annotated[
        bool, Meta(description="embedding_dot: cosine times a learnt scale instead of a plain dot product.")
    ] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.target_update_tau is None) == (self.target_update_period_updates is None):
            raise ValueError("set exactly one of target_update_tau (soft) and target_update_period_updates (hard)")
        if self.evaluation_actions == "sampled" and self.exploration != "boltzmann":
            raise ValueError("evaluation_actions sampled needs exploration boltzmann")
        if self.exploration == "boltzmann":
            idle = ("epsilon_base", "epsilon_alpha", "epsilon_anneal_env_steps")
            self.refuse_idle("with exploration boltzmann", *idle)
        else:
            self.refuse_idle("with exploration epsilon", "temperature")
        if self.action_values != "embedding_mlp":
            self.refuse_idle(f"with action_values {self.action_values}", "item_hidden_size")
        if self.normalise_embeddings and self.action_values != "embedding_dot":
            raise ValueError("normalise_embeddings needs action_values embedding_dot")
        if self.item_embedding == "learnt" and self.action_values == "heads":
            raise ValueError("item_embedding learnt needs action_values embedding_mlp or embedding_dot")

    def make_return_model(self) -> ReturnModel:
        """What the numbers of an action mean: an algorithm's own part."""
        raise NotImplementedError

    def make_learner(self, task: Task, spec: RecordSpec, *, seed: int, device: str) -> GradientLearner:
        """A fresh learner on a torch device (`cpu`, `cuda`)."""
        return GradientLearner(self, ValueRule(self, task, seed=seed, device=device), spec, device)

    def make_policy(self, task: Task, *, env_indices: Sequence[int], total_envs: int) -> Policy:
        """A policy that explores as configured; its weights are random until a snapshot is loaded."""
        network = self.make_network(task, seeded(0))
        if isinstance(task.actions, SlateActions):
            return ListPolicy(self, network, task.slate(self.type), env_indices, total_envs)
        return ValuePolicy(self, network, env_indices, total_envs)

    def make_network(self, task: Task, generator: torch.Generator) -> QNetwork:
        """The network of learner and policy; of slates it values the items."""
        task = one_choice(task)
        offers, returns = Offers(task, task.discrete(self.type).count), self.make_return_model()
        torso = make_torso(self, task, generator)
        return QNetwork(torso, self._make_head(torso.size, task, offers, returns.size, generator), returns, offers)

    def _make_head(self, features: int, task: Task, offers: Offers, size: int, generator: torch.Generator) -> Head:
        if self.action_values == "heads":
            if offers.candidates is not None:
                raise ConfigError(
                    "algorithm.action_values: heads gives every place among the candidates a value whatever item is "
                    "there; take embedding_mlp or embedding_dot"
                )
            return ActionHead(features, task.discrete(self.type).count, size, self.dueling, generator)
        learnt, part = self.item_embedding == "learnt", offers.candidates
        if part is not None and len(part.shape) == 2:
            if learnt:
                raise ConfigError(
                    "algorithm.item_embedding: learnt needs candidate ids, the environment gives features"
                )
        elif task.item_embeddings is None and not learnt:
            raise ConfigError(
                "algorithm.item_embedding: fixed needs an environment with item embeddings, this one has none; "
                "take learnt"
            )
        actions, embedding_size = task.discrete(self.type).count, self.embedding_size
        items = make_items(task, offers, actions, learnt=learnt, size=embedding_size, generator=generator)
        if self.action_values == "embedding_mlp":
            return EmbeddingMLPHead(features, items, size, self.item_hidden_size, self.dueling, generator)
        return EmbeddingDotHead(features, items, size, self.normalise_embeddings, self.dueling, generator)


class ValueRule(UpdateRule):
    """Online and target network; what is learnt of the return is the network's return model."""

    def __init__(self, config: ValueConfig, task: Task, *, seed: int, device: str) -> None:
        super().__init__()
        self._double = config.double
        generator = seeded(seed)
        self.online = config.make_network(task, generator).to(device)
        self.target = config.make_network(task, generator).to(device)
        self._move_target = TargetUpdate(
            (self.online, self.target), tau=config.target_update_tau, period=config.target_update_period_updates
        )
        self.optimizers = {"online": Optimizer(self.online, config)}

    @property
    def acting(self) -> nn.Module:
        """The online network."""
        return self.online

    def update(self, t: Mapping[str, Tensor], weights: Tensor, *, number: int, diagnose: bool) -> Updated:
        """One step on the weighted losses of the return model; see UpdateRule.update."""
        online, a_tm1, r_t, discount_t = self.online, t["action"], t["reward"], t["discount"]
        outputs_tm1 = online.outputs(t["observation"])
        with torch.no_grad():
            outputs_t = self.target.outputs(t["next_observation"])
            q_t = online(t["next_observation"]) if self._double else self.target.returns.expected(outputs_t)
            selector = online.selectable(q_t, t["next_observation"])
        learn = partial(list_losses, online.returns) if a_tm1.dim() == 2 else online.returns.loss
        losses, errors = learn(outputs_tm1, a_tm1, r_t, discount_t, outputs_t, selector)
        loss = weighted_mean(losses, weights)
        self.optimizers["online"].minimise(loss)
        self._move_target(number)
        if not diagnose:
            return Updated(errors)
        with torch.no_grad():
            q_tm1 = online.returns.expected(outputs_tm1)
            items = a_tm1.view(len(a_tm1), -1)  # of a slate its items, else the action
            slots = items.shape[1]
            bootstrap = self.target.returns.expected(outputs_t).gather(1, best_items(selector, slots)).mean(dim=1)
            target_tm1 = r_t + discount_t * bootstrap
            taken = q_tm1.gather(1, items).mean(dim=1)
            greedy = best_items(online.selectable(q_tm1, t["observation"]), slots)
        return Updated(
            errors,
            spread(q=taken, target=target_tm1, bootstrap=bootstrap)
            | {
                "loss": loss,
                "td_error": (target_tm1 - taken).abs().mean(),
                "greedy_share": (greedy == items).float().mean(),
                "greedy_entropy": choice_entropy(greedy[:, 0], q_tm1.shape[1]),
            },
        )


def choice_entropy(choice: Tensor, count: int) -> Tensor:
    """Entropy, in nats, of how often each of `count` actions is chosen in int64[B]: float[]."""
    shares = torch.zeros(count, device=choice.device)
    shares.scatter_add_(0, choice, torch.full_like(choice, 1, dtype=shares.dtype) / len(choice))
    return -torch.xlogy(shares, shares).sum()
