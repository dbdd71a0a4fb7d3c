"""Features of a sequence of items, some of which may be missing."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from learners.networks.initialise import gru, linear


class GRUEncoder(nn.Module):
    """The state of a gated recurrent unit after the newest item (Cho et al. 2014; Hidasi et al. 2016); 0 after none.

    Args:
        inputs: numbers of an item.
        size: numbers of the state.
        generator: initialises the weights.
    """

    def __init__(self, inputs: int, size: int, generator: torch.Generator) -> None:
        super().__init__()
        self.layer = gru(inputs, size, generator)

    def forward(self, items: Tensor, present: Tensor) -> Tensor:
        """float32[B, H, inputs], oldest first, and bool[B, H] -> float32[B, size]."""
        items, _ = closed_up(items, present, newest_last=False)
        states, _ = self.layer(items)
        count = present.sum(dim=1)
        last = (count - 1).clamp(min=0)[:, None, None].expand(-1, 1, states.shape[2])
        state: Tensor = states.gather(1, last).squeeze(1)
        return state * (count > 0).unsqueeze(1)


class CFNEncoder(nn.Module):
    """The state of a chaos-free network after the newest item (Laurent and von Brecht 2017; Chen et al. 2019).

    z = sigmoid(U_z s + W_z u + b_z), i = sigmoid(U_i s + W_i u + b_i), s' = z * tanh(s) + i * tanh(W_a u), from s = 0.

    Args:
        inputs: numbers of an item, u.
        size: numbers of the state, s.
        generator: initialises the weights.
    """

    def __init__(self, inputs: int, size: int, generator: torch.Generator) -> None:
        super().__init__()
        self._size = size
        self.gates_of_item = linear(inputs, 2 * size, generator)  # W_z over W_i, with b_z and b_i
        self.gates_of_state = linear(size, 2 * size, generator, bias=False)  # U_z over U_i
        self.content = linear(inputs, size, generator, bias=False)  # W_a

    def forward(self, items: Tensor, present: Tensor) -> Tensor:
        """float32[B, H, inputs], oldest first, and bool[B, H] -> float32[B, size]."""
        of_item, content = self.gates_of_item(items), torch.tanh(self.content(items))
        state = items.new_zeros(len(items), self._size)
        for t in range(items.shape[1]):
            gates = torch.sigmoid(self.gates_of_state(state) + of_item[:, t])
            z, i = gates[:, : self._size], gates[:, self._size :]
            state = torch.where(present[:, t, None], z * torch.tanh(state) + i * content[:, t], state)
        return state


class LinearRecurrentEncoder(nn.Module):
    """The state of a gated linear recurrence after the newest item (Martin and Cundy 2018); 0 after none.

    s' = a * s + (W_g u + b_g) * (W_c u + b_c), a = sigmoid(r) between 0 and 1 for each number of the state. The gate is
    not squashed, as in the bilinear unit of Dauphin et al. (2017), so that the state holds products of what an item is
    and what came of it: a sum of items weighted by their rewards is one linear layer away.

    Args:
        inputs: numbers of an item, u.
        size: numbers of the state, s.
        generator: initialises the weights; what is left of the state after a step begins between 0.5 and 0.99.
    """

    def __init__(self, inputs: int, size: int, generator: torch.Generator) -> None:
        super().__init__()
        self.gate_and_content = linear(inputs, 2 * size, generator)  # W_g over W_c, with b_g and b_c
        kept = 0.5 + 0.49 * torch.rand(size, generator=generator)
        self.rate = nn.Parameter(torch.logit(kept))  # r

    def forward(self, items: Tensor, present: Tensor) -> Tensor:
        """float32[B, H, inputs], oldest first, and bool[B, H] -> float32[B, size]."""
        gate, content = self.gate_and_content(items).chunk(2, dim=2)
        later = present.flip(1).cumsum(dim=1).flip(1) - present.int()  # items present that came after each
        kept = torch.exp(functional.logsigmoid(self.rate) * later.unsqueeze(2)) * present.unsqueeze(2)
        state: Tensor = (kept * gate * content).sum(dim=1)
        return state


class AttentionEncoder(nn.Module):
    """Causal self-attention over the items, read at the newest (SASRec: Kang and McAuley 2018).

    Positions count back from the newest item. Unlike the paper, layers are normalised before attention and before the
    feed-forward part, and there is no dropout.

    Args:
        inputs: numbers of an item.
        length: H, items at most.
        size: numbers of an item inside, and out.
        heads: of the attention; divides `size`.
        layers: attention layers one after the other.
        generator: initialises the weights.
    """

    def __init__(
        self, inputs: int, length: int, size: int, heads: int, layers: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.embed = linear(inputs, size, generator)
        self.positions = nn.Parameter(0.1 * torch.randn(length, size, generator=generator))
        self.blocks = nn.ModuleList(_Block(size, heads, generator) for _ in range(layers))
        self.norm = nn.LayerNorm(size)
        self._before: Tensor
        self._itself: Tensor
        square = torch.ones(length, length, dtype=torch.bool)
        self.register_buffer("_before", square.tril(), persistent=False)
        self.register_buffer("_itself", torch.eye(length, dtype=torch.bool), persistent=False)

    def forward(self, items: Tensor, present: Tensor) -> Tensor:
        """float32[B, H, inputs], oldest first, and bool[B, H] -> float32[B, size]; without items a constant."""
        return self.sequence(*closed_up(items, present, newest_last=True), last=1)[:, 0]

    def sequence(self, items: Tensor, present: Tensor, *, last: int) -> Tensor:
        """Features after each of the `last` items.

        Args:
            items: float32[B, H, inputs], missing ones first.
            present: bool[B, H].
            last: how many; the fewer, the less the last layer costs.

        Returns:
            float32[B, last, size].
        """
        # Where an item is missing it sees itself, since a softmax over nothing is NaN; nobody else sees it.
        seen = (self._before & present.unsqueeze(1)) | self._itself
        x = self.embed(items) * present.unsqueeze(2) + self.positions
        for depth, block in enumerate(self.blocks, start=1):
            x = block(x, seen.unsqueeze(1), last=last if depth == len(self.blocks) else x.shape[1])
        normed: Tensor = self.norm(x)
        return normed


class _Block(nn.Module):
    """One attention layer and its feed-forward part, each added to what came in."""

    def __init__(self, size: int, heads: int, generator: torch.Generator) -> None:
        super().__init__()
        self._heads = heads
        self.attention_norm, self.feed_norm = nn.LayerNorm(size), nn.LayerNorm(size)
        self.query = linear(size, size, generator)
        self.key_value = linear(size, 2 * size, generator)
        self.merge = linear(size, size, generator)
        self.feed = nn.Sequential(linear(size, size, generator), nn.ReLU(), linear(size, size, generator))

    def forward(self, x: Tensor, seen: Tensor, *, last: int) -> Tensor:
        """float32[B, H, size], and bool[B, 1, H, H], who sees whom -> float32[B, last, size]."""
        normed = self.attention_norm(x)
        query, key, value = (
            part.unflatten(2, (self._heads, -1)).transpose(1, 2)
            for part in (self.query(normed[:, -last:]), *self.key_value(normed).chunk(2, dim=2))
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen[:, :, -last:])
        x = x[:, -last:] + self.merge(mixed.transpose(1, 2).flatten(2))
        fed: Tensor = x + self.feed(self.feed_norm(x))
        return fed


def closed_up(items: Tensor, present: Tensor, *, newest_last: bool) -> tuple[Tensor, Tensor]:
    """Items and their marks moved together, in their order.

    Args:
        items: float32[B, H, n], oldest first.
        present: bool[B, H].
        newest_last: the newest item comes to stand at the end; else the oldest at the beginning.
    """
    order = (present if newest_last else ~present).int().argsort(dim=1, stable=True)
    return items.gather(1, order.unsqueeze(2).expand_as(items)), present.gather(1, order)
