"""The contract of an algorithm: a frozen config that builds its own learner and policies; and what most have alike."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated, Literal, Protocol

import msgspec
import torch
from msgspec import Meta
from torch import Tensor

from learners.learner import Learner
from learners.optimization.schedules import cosine, linear, warm_restarts
from learners.policies import Policy
from learners.task import Task
from replay_server.specs import Field, RecordSpec

Positive = Annotated[float, Meta(gt=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Rate = Annotated[float, Meta(gt=0, le=1)]
Count = Annotated[int, Meta(ge=1)]
Sizes = Annotated[tuple[Count, ...], Meta(min_length=1)]


class Algorithm(Protocol):
    """What `algorithm.type` names: a msgspec.Struct, frozen, with these fields and methods."""

    @property
    def batch_size(self) -> int: ...

    @property
    def gamma(self) -> float: ...

    @property
    def discount_hours(self) -> float | None:
        """Time that gamma is the discount of; None: it is that of a step."""

    @property
    def n_step(self) -> int | None:
        """Steps of one record; None: to the end of the episode."""

    @property
    def reward_scale(self) -> float: ...

    @property
    def needs_queue(self) -> str | None:
        """Why, and what to set instead, where only records that the newest policies made teach rightly; else None."""

    def record_fields(self, task: Task) -> tuple[Field, ...]:
        """Columns that records have beyond those of every transition: what its policy puts into `Action.extras`, and
        on request `first_reward` and `first_response`, the reward and the `response` part of a record's first step.
        """

    def make_learner(self, task: Task, spec: RecordSpec, *, seed: int, device: str) -> Learner:
        """A fresh learner.

        Raises:
            ConfigError: the algorithm can't take this task's observations or actions.
        """

    def make_policy(self, task: Task, *, env_indices: Sequence[int], total_envs: int) -> Policy:
        """A policy for the environments at `env_indices` of the run's `total_envs`; raises like `make_learner`."""


class AlgorithmConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings that learners have alike; all step counts are environment transitions unless the name says updates."""

    gamma: Annotated[Fraction, Meta(description="Discount per environment step; 0: nothing but the next reward.")] = (
        0.99
    )
    discount_hours: Annotated[
        Positive | None,
        Meta(
            description="Gamma is the discount of so many hours, told by the environment's dt_hours; null: of a step."
        ),
    ] = None
    n_step: Annotated[Count, Meta(description="Steps summed into one reward.")] = 1
    reward_scale: Annotated[float, Meta(gt=0, description="Factor on rewards before storing; aim at |Q| < 10.")] = 1.0
    torso: Annotated[
        Literal["auto", "mlp", "nature_cnn", "gru", "cfn", "linear_rnn", "attention"],
        Meta(description="What comes before the hidden layers; auto: nature_cnn for images, attention for a history."),
    ] = "auto"
    hidden_sizes: Annotated[Sizes, Meta(description="Units of each hidden layer.")] = (128, 128)
    activation: Annotated[Literal["relu", "tanh"], Meta(description="Function after each hidden layer.")] = "relu"
    embedding_size: Annotated[Count, Meta(description="Numbers that torsos and item tables learn for an item id.")] = 32
    encoder_size: Annotated[
        Count, Meta(description="Numbers that a torso of kind gru, cfn, linear_rnn or attention makes of a history.")
    ] = 64
    attention_heads: Annotated[Count, Meta(description="Heads of torso attention; a divisor of encoder_size.")] = 2
    attention_layers: Annotated[Count, Meta(description="Layers of torso attention.")] = 1
    batch_size: Annotated[int, Meta(ge=1, description="Records per update.")] = 128
    learning_rate: Annotated[float, Meta(gt=0, description="Step size at the start.")] = 1e-3
    final_learning_rate: Annotated[
        Positive | None, Meta(description="Step size at the end of the decay; null keeps it constant.")
    ] = None
    learning_rate_decay_env_steps: Annotated[
        Count | None, Meta(description="Transitions over which the step size falls; with restarts the first time.")
    ] = None
    learning_rate_decay: Annotated[
        Literal["linear", "cosine", "restarts"],
        Meta(description="How it falls: along a line or half a cosine; restarts: half a cosine again and again."),
    ] = "linear"
    learning_rate_restart_growth: Annotated[
        float, Meta(ge=1, description="Each restart falls over so many times the transitions of the one before.")
    ] = 1.0
    optimizer: Annotated[
        Literal["adam", "adamw", "radam", "sgd"], Meta(description="What makes a step of a gradient.")
    ] = "adam"
    adam_epsilon: Annotated[
        float, Meta(gt=0, description="Added to the root of the mean squared gradient in adam, adamw and radam.")
    ] = 1e-8
    momentum: Annotated[float, Meta(ge=0, lt=1, description="Share of the last step in the next one of sgd.")] = 0.0
    weight_decay: Annotated[
        float, Meta(ge=0, description="Pull of weights to 0: part of the gradient, in adamw apart from it.")
    ] = 0.0
    lookahead_period_updates: Annotated[
        Count | None, Meta(description="Steps between two looks back of Lookahead; null leaves it off.")
    ] = None
    lookahead_alpha: Annotated[Rate, Meta(description="Share of the way that Lookahead keeps at a look back.")] = 0.5
    max_grad_norm: Annotated[
        Positive | None, Meta(description="Gradients are scaled down to this global norm; null leaves them alone.")
    ] = 10.0
    importance_beta: Annotated[Fraction, Meta(description="Importance-sampling exponent at the start.")] = 0.4
    final_importance_beta: Annotated[Fraction, Meta(description="Importance-sampling exponent at the end.")] = 1.0
    importance_beta_env_steps: Annotated[
        int, Meta(ge=1, description="Transitions over which the exponent moves linearly.")
    ] = 100_000
    priority_epsilon: Annotated[float, Meta(gt=0, description="Added to |error| so that no record dies out.")] = 1e-6
    diagnose_every_updates: Annotated[
        int, Meta(ge=1, description="Updates between two that are measured for the metrics.")
    ] = 10
    max_skipped_updates: Annotated[
        int, Meta(ge=1, description="Updates in a row skipped for values that are not finite before the run ends.")
    ] = 10

    def __post_init__(self) -> None:
        if (self.final_learning_rate is None) != (self.learning_rate_decay_env_steps is None):
            raise ValueError("final_learning_rate and learning_rate_decay_env_steps go together: set both or neither")
        if self.torso in ("auto", "attention") and self.encoder_size % self.attention_heads:
            raise ValueError(
                f"attention_heads {self.attention_heads} is no divisor of encoder_size {self.encoder_size}"
            )
        if self.torso not in ("auto", "attention") and (self.attention_heads, self.attention_layers) != (2, 1):
            raise ValueError(f"attention_heads and attention_layers do nothing with torso {self.torso}: drop them")
        if self.torso in ("mlp", "nature_cnn"):
            self.refuse_idle(f"with torso {self.torso}", "encoder_size")
        if self.learning_rate_decay != "linear" and self.learning_rate_decay_env_steps is None:
            raise ValueError(f"learning_rate_decay is {self.learning_rate_decay}: set learning_rate_decay_env_steps")
        if self.learning_rate_restart_growth != 1.0 and self.learning_rate_decay != "restarts":
            raise ValueError("learning_rate_restart_growth needs learning_rate_decay: restarts")
        if self.momentum and self.optimizer != "sgd":
            raise ValueError(f"momentum is of optimizer sgd; {self.optimizer} has its own: drop it")
        if self.optimizer == "sgd":
            self.refuse_idle("with optimizer sgd", "adam_epsilon")
        if self.lookahead_period_updates is None:
            self.refuse_idle("without lookahead_period_updates", "lookahead_alpha")

    def refuse_idle(self, because: str, *names: str) -> None:
        """Refuse settings that do nothing beside another one.

        Args:
            because: the other one, as in `with optimizer sgd`.
            names: fields nobody then reads.

        Raises:
            ValueError: one of them is not at its default.
        """
        for field in msgspec.structs.fields(self):
            if field.name in names and getattr(self, field.name) != field.default:
                raise ValueError(f"{field.name} does nothing {because}: drop it, or change that")

    @property
    def needs_queue(self) -> str | None:
        """Records of all ages teach."""
        return None

    def record_fields(self, task: Task) -> tuple[Field, ...]:
        """No further columns."""
        return ()

    def rate(self, position: int) -> float:
        """Step size after `position` transitions."""
        start, end, steps = self.learning_rate, self.final_learning_rate, self.learning_rate_decay_env_steps
        if end is None or steps is None:
            return start
        match self.learning_rate_decay:
            case "linear":
                return linear(start, end, position / steps)
            case "cosine":
                return cosine(start, end, position / steps)
            case "restarts":
                return warm_restarts(start, end, position / steps, self.learning_rate_restart_growth)

    def beta(self, position: int) -> float:
        """Importance-sampling exponent after `position` transitions."""
        return linear(self.importance_beta, self.final_importance_beta, position / self.importance_beta_env_steps)


def seeded(seed: int, device: str = "cpu") -> torch.Generator:
    """A generator of its own for tensors on a device; those on `meta`, which has none, take one of the CPU."""
    return torch.Generator("cpu" if device == "meta" else device).manual_seed(seed)


def continue_generator(generator: torch.Generator, state: Tensor) -> None:
    """Go on from a saved state, uint8[n].

    A state of another kind of device has another length and means nothing here: it becomes a seed, so that the same
    checkpoint always goes on with the same numbers, and not with those the run began with.
    """
    if len(state) == len(generator.get_state()):
        generator.set_state(state)
    else:
        generator.manual_seed(int.from_bytes(hashlib.sha256(state.numpy().tobytes()).digest()[:7], "little"))
