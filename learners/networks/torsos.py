"""From an observation to features: the parts of an observation, what each goes through, then hidden layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from learners.algorithm import AlgorithmConfig
from learners.networks.embeddings import Categories, ItemEmbedding
from learners.networks.histories import AttentionEncoder, CFNEncoder, GRUEncoder, LinearRecurrentEncoder
from learners.networks.mlp import MLP
from learners.networks.nature_cnn import NatureCNN
from learners.networks.normaliser import Normaliser
from learners.task import Part, Task
from replay_server.errors import ConfigError

_NOT_STATE = ("action_mask", "candidates", "choice_scores", "response")  # parts that heads and losses read
_SEQUENCES = ("gru", "cfn", "linear_rnn", "attention")


class Torso(nn.Module):
    """Features of an observation.

    Its modules are not called but asked for `forward`: a call looks for hooks, which costs as much as a small layer.

    Args:
        normaliser: standardises observations and scales rewards.
        encoder: makes numbers of what is not numbers yet, float32[B, n] -> float32[B, m]; None where all are.
        layers: hidden layers.
        size: units of the last.

    Attributes:
        normaliser: as given.
        size: features.
    """

    def __init__(self, normaliser: Normaliser, encoder: nn.Module | None, layers: nn.Module, size: int) -> None:
        super().__init__()
        self.normaliser = normaliser
        self.encoder = encoder
        self.layers = layers
        self.size = size

    def forward(self, observation: Tensor) -> Tensor:
        """[B, *observation_shape] -> float32[B, size]."""
        numbers = self.normaliser.forward(observation)
        features: Tensor = self.layers.forward(numbers if self.encoder is None else self.encoder(numbers))
        return features


class Numbers(nn.Module):
    """A part of an observation as it is."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        self._part = part
        self.size = part.size

    def forward(self, flat: Tensor) -> Tensor:
        """float32[B, numbers of one observation] -> float32[B, size]."""
        return self._part.of(flat)


class History(nn.Module):
    """Items one after the other, oldest first.

    Args:
        part: [H] item ids, below 0 for none, or [H, d] numbers, all 0 for none.
        embedding: of the ids; None for numbers.
        encoder: float32[B, H, n] and bool[B, H] -> float32[B, size]; None puts them one beside the other.
        size: numbers out.
        padded: items may be missing.
    """

    def __init__(
        self, part: Part, embedding: ItemEmbedding | None, encoder: nn.Module | None, size: int, *, padded: bool
    ) -> None:
        super().__init__()
        self._part, self._padded = part, padded
        self.embedding = embedding
        self.encoder = encoder
        self.size = size

    def forward(self, flat: Tensor) -> Tensor:
        """float32[B, numbers of one observation] -> float32[B, size]."""
        raw = self._part.of(flat).reshape(-1, *self._part.shape)
        items = raw if self.embedding is None else self.embedding(raw)
        if self.encoder is None:
            return items.flatten(1)
        encoded: Tensor = self.encoder(items, self._present(raw))
        return encoded

    def _present(self, raw: Tensor) -> Tensor:
        if self.embedding is not None:
            return raw >= 0
        present: Tensor = (raw != 0).any(dim=2)
        return present if self._padded else torch.ones_like(present)


class Encoder(nn.Module):
    """Pieces of an observation, each made numbers in its own way, one beside the other."""

    def __init__(self, pieces: list[Numbers | Categories | History]) -> None:
        super().__init__()
        self.pieces = nn.ModuleList(pieces)
        self.size = sum(piece.size for piece in pieces)

    def forward(self, flat: Tensor) -> Tensor:
        """float32[B, numbers of one observation] -> float32[B, size]."""
        return torch.cat([piece(flat) for piece in self.pieces], dim=1)


def make_torso(config: AlgorithmConfig, task: Task, generator: torch.Generator) -> Torso:
    """The torso that the config names, for the task's observations.

    `auto` is nature_cnn for images, attention where there is a `history` (half the time of gru, and it finds an item at
    once however long ago it was), mlp for everything else. `mlp` takes everything: it
    flattens, and puts the embeddings of ids one beside the other. The parts `action_mask`, `candidates`,
    `choice_scores` and `response` are no part of the state.

    Raises:
        ConfigError: the torso does not take these observations.
    """
    encoder = _make_encoder(config, _kind(config, task), task, generator)
    inputs = task.observation_size if encoder is None else encoder.size
    layers = MLP(inputs, config.hidden_sizes, generator, config.activation)
    return Torso(Normaliser(task), encoder, layers, config.hidden_sizes[-1])


def make_encoder(config: AlgorithmConfig, task: Task, generator: torch.Generator) -> Torso:
    """What comes before the hidden layers of `make_torso`, for networks that join something of their own there.

    Raises:
        ConfigError: the torso that the config names does not take these observations.
    """
    encoder = _make_encoder(config, _kind(config, task), task, generator)
    size = task.observation_size if encoder is None else encoder.size
    return Torso(Normaliser(task), encoder, nn.Identity(), size)


def _kind(config: AlgorithmConfig, task: Task) -> str:
    history, axes = task.part("history"), len(task.observation_shape)
    if config.torso == "auto":
        if history is None:
            _refuse_idle(config)
        if task.is_image or (axes > 2 and not task.parts):
            return "nature_cnn"
        return "mlp" if history is None else "attention"
    if config.torso in _SEQUENCES and history is None and (task.parts or axes != 2):
        raise ConfigError(
            f"algorithm.torso: {config.torso} takes a history, the environment has none; name a part of its Dict "
            "observation history, stack observations to [k, n], or take auto"
        )
    if config.torso == "nature_cnn" and task.parts:
        raise ConfigError("algorithm.torso: nature_cnn takes images, the environment observes a Dict; take auto")
    return config.torso


def _refuse_idle(config: AlgorithmConfig) -> None:
    try:
        config.refuse_idle("without a history", "encoder_size", "attention_heads", "attention_layers")
    except ValueError as error:
        raise ConfigError(f"algorithm.{error}") from None


def _make_encoder(
    config: AlgorithmConfig, kind: str, task: Task, generator: torch.Generator
) -> Encoder | NatureCNN | None:
    if kind == "nature_cnn":
        return NatureCNN(task.observation_shape, config.activation, generator)
    if not task.parts:
        if kind == "mlp":
            return None
        stack = Part("observation", 0, task.observation_size, task.observation_shape, False)
        return Encoder([_history(config, kind, stack, task, generator)])
    pieces: list[Numbers | Categories | History] = []
    for part in task.parts:
        if part.name in _NOT_STATE:
            continue
        if part.name == "history":
            pieces.append(_history(config, kind, part, task, generator))
        elif part.categories:
            pieces.append(Categories(part, config.embedding_size, generator))
        else:
            pieces.append(Numbers(part))
    if not pieces:
        raise ConfigError(
            f"environment.id: it observes {', '.join(part.name for part in task.parts)} and nothing that tells states "
            "apart; add a part observation or history"
        )
    return Encoder(pieces)


def _history(config: AlgorithmConfig, kind: str, part: Part, task: Task, generator: torch.Generator) -> History:
    if len(part.shape) not in (1, 2) or (len(part.shape) == 1 and not part.integer):
        raise ConfigError(
            f"environment.id: history has shape {list(part.shape)}; give [H] item ids as whole "
            "numbers (-1: none) or [H, d] features"
        )
    embedding, inputs = None, part.shape[-1]
    if len(part.shape) == 1:
        embedding = _item_embedding(config, part, task, generator)
        inputs = embedding.size
    length, size = part.shape[0], config.encoder_size
    padded = part.name == "history"
    match kind:
        case "gru":
            encoder: nn.Module = GRUEncoder(inputs, size, generator)
        case "cfn":
            encoder = CFNEncoder(inputs, size, generator)
        case "linear_rnn":
            encoder = LinearRecurrentEncoder(inputs, size, generator)
        case "attention":
            heads, layers = config.attention_heads, config.attention_layers
            encoder = AttentionEncoder(inputs, length, size, heads, layers, generator)
        case _:
            return History(part, embedding, None, length * inputs, padded=padded)
    return History(part, embedding, encoder, size, padded=padded)


def _item_embedding(config: AlgorithmConfig, part: Part, task: Task, generator: torch.Generator) -> ItemEmbedding:
    known = task.item_embeddings
    if known is not None and part.largest >= len(known):
        raise ConfigError(
            f"environment.id: {part.name} has item ids up to {part.largest}, but item_embeddings are {len(known)}; "
            "give one embedding an item, and the space the largest id as its bound"
        )
    count = part.largest + 1 if known is None else len(known)
    return ItemEmbedding(count, config.embedding_size, known, generator)
