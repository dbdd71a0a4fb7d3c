"""SlateQ: values of items on a slate, put together by a model of the user's choice (Ie et al. 2019).

Q(s, slate) = sum of P(i|s, slate) Qbar(s, i) over what the user may do: consume an item i of the slate, or none. A
record teaches Qbar of what was consumed, which the part `response` of the observation says that the slate led to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from msgspec import Meta
from numpy.typing import NDArray
from torch import Tensor, nn

from learners.acting.best_slates import OPTIMIZERS, check_slates, random_slates, slate_counts
from learners.acting.exploration import annealed, ape_x_epsilons
from learners.algorithm import AlgorithmConfig, Count, Fraction, Rate, seeded
from learners.gradient_learner import GradientLearner
from learners.learner import StepOutput
from learners.logged_choices import check_response
from learners.losses.reductions import weighted_mean
from learners.losses.slate import choice_losses, consumed, possible_outcomes, slate_td_error, slate_values
from learners.losses.value_learning import huber
from learners.networks.heads import EmbeddingDotHead, EmbeddingMLPHead
from learners.networks.item_table import make_items
from learners.networks.offers import Offers
from learners.networks.q_network import Head
from learners.networks.slate_network import GivenChoice, OutcomeNetwork, SlateNetwork
from learners.networks.torsos import make_torso
from learners.optimization.optimizers import Optimizer
from learners.optimization.targets import TargetUpdate
from learners.policies import Action, NetworkPolicy
from learners.task import Task
from learners.update_rule import Updated, UpdateRule, spread
from replay_server.batches import SampleBatch
from replay_server.specs import Field, RecordSpec


class SlateQConfig(AlgorithmConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of SlateQ."""

    type: Annotated[str, Meta(description="Short name or module:Class of the algorithm.")] = "slateq"
    slate_optimizer: Annotated[
        Literal["exact", "greedy", "top_k"],
        Meta(description="How the best slate is found: fractional programming, one by one, or largest score x value."),
    ] = "exact"
    choice: Annotated[
        Literal["learnt", "given"], Meta(description="Learn the user's choice from responses, or read choice_scores.")
    ] = "learnt"
    target: Annotated[
        Literal["max", "sarsa"], Meta(description="Bootstrap from the best slate, or from one of the exploring policy.")
    ] = "max"
    sarsa_epsilon: Annotated[
        Fraction, Meta(description="Target sarsa: probability that the successor's slate is a random one.")
    ] = 0.1
    double: Annotated[bool, Meta(description="Choose the successor's slate with the online network's values.")] = True
    no_click_value: Annotated[
        bool, Meta(description="Learn a value for consuming nothing; else it is 0 and such records teach no value.")
    ] = True
    dueling: Annotated[
        bool, Meta(description="An item's value is that of consuming nothing and an advantage over it.")
    ] = True
    huber_delta: Annotated[float, Meta(gt=0, description="Error where the Huber loss turns linear.")] = 1.0
    action_values: Annotated[
        Literal["embedding_mlp", "embedding_dot"],
        Meta(description="Values and choice are MLP([features, item]), or features times item embedding."),
    ] = "embedding_mlp"
    item_hidden_size: Annotated[Count, Meta(description="Hidden units of embedding_mlp.")] = 64
    choice_learning_rate: Annotated[
        float, Meta(gt=0, description="Step size of choice learnt; it follows the decay of learning_rate.")
    ] = 1e-3
    target_update_tau: Annotated[Rate | None, Meta(description="Soft target update rate per update.")] = 0.01
    target_update_period_updates: Annotated[
        Count | None, Meta(description="Hard target update every so many learner updates.")
    ] = None
    epsilon_base: Annotated[float, Meta(gt=0, le=1, description="Epsilon of the most exploring environment.")] = 0.4
    epsilon_alpha: Annotated[float, Meta(ge=0, description="Spread of epsilons over environments.")] = 7.0
    epsilon_anneal_env_steps: Annotated[
        int, Meta(ge=0, description="Transitions over which everyone's exploration falls from 1 to its own epsilon.")
    ] = 10_000

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.target_update_tau is None) == (self.target_update_period_updates is None):
            raise ValueError("set exactly one of target_update_tau (soft) and target_update_period_updates (hard)")
        if self.action_values != "embedding_mlp":
            self.refuse_idle(f"with action_values {self.action_values}", "item_hidden_size")
        if self.target == "max":
            self.refuse_idle("with target max", "sarsa_epsilon")
        if self.choice == "given":
            self.refuse_idle("with choice given", "choice_learning_rate")

    def record_fields(self, task: Task) -> tuple[Field, ...]:
        """What was made of the slate, float32[K]."""
        return (Field("first_response", "float32", (task.slate(self.type).slots,)),)

    def make_learner(self, task: Task, spec: RecordSpec, *, seed: int, device: str) -> SlateQLearner:
        """A fresh learner on a torch device (`cpu`, `cuda`)."""
        return SlateQLearner(self, SlateQRule(self, task, seed=seed, device=device), spec, device)

    def make_policy(self, task: Task, *, env_indices: Sequence[int], total_envs: int) -> SlateQPolicy:
        """A policy that shows random slates now and then; its weights are random until a snapshot is loaded."""
        return SlateQPolicy(self, task, ape_x_epsilons(env_indices, total_envs, self.epsilon_base, self.epsilon_alpha))

    def make_network(self, task: Task, generator: torch.Generator) -> SlateNetwork:
        """The network of learner and policy."""
        offers = Offers(task, task.slate(self.type).candidates)
        values = self._make_outcomes(task, offers, generator, dueling=self.dueling)
        if self.choice == "given":
            return SlateNetwork(values, GivenChoice(task), offers)
        return SlateNetwork(values, self._make_outcomes(task, offers, generator, dueling=False), offers)

    def _make_outcomes(
        self, task: Task, offers: Offers, generator: torch.Generator, *, dueling: bool
    ) -> OutcomeNetwork:
        torso = make_torso(self, task, generator)
        candidates, learnt = task.slate(self.type).candidates, task.item_embeddings is None
        items = make_items(task, offers, candidates, learnt=learnt, size=self.embedding_size, generator=generator)
        if self.action_values == "embedding_dot":
            head: Head = EmbeddingDotHead(torso.size, items, 1, False, False, generator, biased=False)
        else:
            head = EmbeddingMLPHead(torso.size, items, 1, self.item_hidden_size, False, generator)
        return OutcomeNetwork(torso, head, generator, dueling=dueling)

    def best(self, q: Tensor, scores: Tensor, offered: Tensor, slots: int) -> Tensor:
        """The slates int64[B, K] to show, from values and scores float[B, M + 1]."""
        return OPTIMIZERS[self.slate_optimizer](self.known(q), scores, offered, slots)

    def known(self, q: Tensor) -> Tensor:
        """Values float[B, M + 1] with 0 for consuming nothing where that is not learnt."""
        return q if self.no_click_value else torch.cat([q[:, :-1], torch.zeros_like(q[:, -1:])], dim=1)


class SlateQLearner(GradientLearner):
    """Refuses records with slates that no policy of SlateQ can have shown."""

    def step(self, batch: SampleBatch) -> StepOutput | None:
        """One update from B records; see Learner.step.

        Raises:
            InvalidRecord: a slate shows an item twice, or one that is not among the candidates.
        """
        assert isinstance(self._rule, SlateQRule)
        check_slates(batch.columns["action"], self._rule.candidates)
        return super().step(batch)


class SlateQRule(UpdateRule):
    """Values, their target, and the user's choice."""

    def __init__(self, config: SlateQConfig, task: Task, *, seed: int, device: str) -> None:
        super().__init__()
        self._config = config
        check_response(task, config.type)
        actions = task.slate(config.type)
        self.candidates, self._slots = actions.candidates, actions.slots
        weights = seeded(seed)
        self.online = config.make_network(task, weights).to(device)
        self.target = config.make_network(task, weights).values.to(device)
        self._move_target = TargetUpdate(
            (self.online.values, self.target), tau=config.target_update_tau, period=config.target_update_period_updates
        )
        self.optimizers = {"values": Optimizer(self.online.values, config)}
        if config.choice == "learnt":
            rate = config.choice_learning_rate
            self.optimizers["choice"] = Optimizer(self.online.choice, config, learning_rate=rate)
        self.generator = seeded(seed, device) if config.target == "sarsa" else None

    @property
    def acting(self) -> nn.Module:
        """The online network."""
        return self.online

    def update(self, t: Mapping[str, Tensor], weights: Tensor, *, number: int, diagnose: bool) -> Updated:
        """One step on the values' error and one on the choice's likelihood; see UpdateRule.update."""
        config, slate_tm1, response = self._config, t["action"], t["first_response"]
        outcome_tm1 = consumed(slate_tm1, response, self.candidates)
        q_t, scores_t, slate_t = self._successor(t["next_observation"])
        q_tm1 = self.online.values(t["observation"])
        td_error = slate_td_error(q_tm1, outcome_tm1, t["reward"], t["discount"], q_t, scores_t, slate_t)
        clicked = (outcome_tm1 < self.candidates).float()
        counts = torch.ones_like(clicked) if config.no_click_value else clicked
        loss = weighted_mean(huber(td_error, config.huber_delta) * counts, weights)
        self.optimizers["values"].minimise(loss)
        choice_loss, logits = self._learn_choice(t["observation"], slate_tm1, response, weights)
        self._move_target(number)
        errors = (td_error.detach() * counts).abs()
        if not diagnose:
            return Updated(errors)
        with torch.no_grad():
            bootstrap = slate_values(q_t, scores_t, slate_t)
            taken = q_tm1.gather(1, outcome_tm1.unsqueeze(1)).squeeze(1)
            shown = logits.gather(1, possible_outcomes(slate_tm1, self.candidates)).softmax(dim=1)
        return Updated(
            errors,
            spread(q=taken, target=taken + td_error, bootstrap=bootstrap)
            | {
                "loss": loss,
                "td_error": errors.mean(),
                "choice_loss": choice_loss,
                "click_share": clicked.mean(),
                "click_probability": 1.0 - shown[:, -1].mean(),
                "no_click_q_mean": config.known(q_tm1)[:, -1].mean(),
            },
        )

    def _successor(self, next_observation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Target values and scores [B, M + 1] at the successor, and the slate [B, K] shown there."""
        config = self._config
        with torch.no_grad():
            offered = self.online.offered(next_observation, self.candidates)
            scores_t = self.online.scores(next_observation, offered)
            q_t = self.target(next_observation)
            selector = self.online.values(next_observation) if config.double else q_t
            slate_t = config.best(selector, scores_t, offered, self._slots)
            if self.generator is not None:
                draws = self.uniform(offered.shape, offered.device)
                anything = random_slates(offered, self._slots, draws)
                explores = self.uniform((len(slate_t), 1), slate_t.device)
                slate_t = torch.where(explores < config.sarsa_epsilon, anything, slate_t)
            return config.known(q_t), scores_t, slate_t

    def _learn_choice(
        self, observation: Tensor, slate: Tensor, response: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        logits = self.online.choice(observation)
        loss = weighted_mean(choice_losses(logits, slate, response), weights)
        if "choice" in self.optimizers:
            self.optimizers["choice"].minimise(loss)
        return loss, logits.detach()


class SlateQPolicy(NetworkPolicy[SlateNetwork]):
    """The best slate, and now and then a random one, on the CPU."""

    def __init__(self, config: SlateQConfig, task: Task, epsilons: NDArray[np.float64]) -> None:
        super().__init__(config.make_network(task, seeded(0)))
        check_response(task, config.type)
        self._config = config
        self._actions = task.slate(config.type)
        self._epsilons = epsilons

    def act(self, observation: NDArray[Any], rng: np.random.Generator, *, explore: bool, env_steps: int) -> Action:
        """Slates int64[B, K], ordered as the optimizer does; see Policy.act.

        The log probability is that of the slate in its order, under the mixture of best and random slates.
        """
        config, network, slots = self._config, self._network, self._actions.slots
        with torch.inference_mode():
            seen = torch.from_numpy(observation)
            allowed = network.offered(seen, self._actions.candidates)
            best = config.best(network.values(seen), network.scores(seen, allowed), allowed, slots).numpy()
        if not explore:
            return Action(best, np.zeros(len(best), dtype=np.float32))
        epsilon = annealed(self._epsilons, env_steps, config.epsilon_anneal_env_steps)
        anything = random_slates(allowed, slots, torch.from_numpy(rng.random(allowed.shape))).numpy()
        slate = np.where((rng.random(len(best)) < epsilon)[:, None], anything, best)
        same = (slate == best).all(axis=1)
        probability = epsilon * np.exp(-slate_counts(allowed.numpy(), slots)) + (1.0 - epsilon) * same
        return Action(slate, np.log(probability).astype(np.float32))
