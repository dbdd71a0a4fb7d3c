"""What networks see: every torso against its equations written out, missing items, images, names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch.nn import functional

from learners.algorithm import AlgorithmConfig, seeded
from learners.networks.embeddings import Categories, ItemEmbedding
from learners.networks.histories import AttentionEncoder, CFNEncoder, GRUEncoder, LinearRecurrentEncoder, closed_up
from learners.networks.nature_cnn import NatureCNN
from learners.networks.torsos import make_torso
from learners.task import DiscreteActions, Part, Task
from replay_server.errors import ConfigError

B, H, N, SIZE = 5, 6, 4, 8
CONFIG = AlgorithmConfig(hidden_sizes=(16,), embedding_size=4)


def sequences(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Items [B, H, N] and which are present; the first row has none, the last all."""
    generator = seeded(seed)
    items = torch.randn(B, H, N, generator=generator)
    present = torch.rand(B, H, generator=generator) < 0.6
    present[0], present[-1] = False, True
    return items, present


ENCODERS: dict[str, Callable[[], Any]] = {
    "gru": lambda: GRUEncoder(N, SIZE, seeded(1)),
    "cfn": lambda: CFNEncoder(N, SIZE, seeded(1)),
    "linear_rnn": lambda: LinearRecurrentEncoder(N, SIZE, seeded(1)),
    "attention": lambda: AttentionEncoder(N, H, SIZE, 2, 2, seeded(1)),
}


def test_gru_is_its_equations_over_the_items_present() -> None:
    encoder, (items, present) = ENCODERS["gru"](), sequences()
    w, u, b_w, b_u = (parameter.detach() for parameter in encoder.layer.parameters())
    for row in range(B):
        h = torch.zeros(SIZE)
        for t in torch.nonzero(present[row]).flatten():
            (r_x, z_x, n_x), (r_h, z_h, n_h) = (w @ items[row, t] + b_w).split(SIZE), (u @ h + b_u).split(SIZE)
            z = torch.sigmoid(z_x + z_h)
            h = (1 - z) * torch.tanh(n_x + torch.sigmoid(r_x + r_h) * n_h) + z * h
        torch.testing.assert_close(encoder(items, present)[row].detach(), h)


def test_linear_rnn_is_its_equation_over_the_items_present() -> None:
    encoder, (items, present) = ENCODERS["linear_rnn"](), sequences()
    gate, content = encoder.gate_and_content.weight.chunk(2)
    gate_bias, content_bias = encoder.gate_and_content.bias.chunk(2)
    kept = torch.sigmoid(encoder.rate)
    assert (kept >= 0.5).all() and (kept < 1.0).all() and kept.std() > 0.05
    for b in range(B):
        state = torch.zeros(SIZE)
        for u in items[b][present[b]]:
            state = kept * state + (gate @ u + gate_bias) * (content @ u + content_bias)
        torch.testing.assert_close(encoder(items, present)[b], state)


def test_cfn_is_its_equations_over_the_items_present() -> None:
    encoder, (items, present) = ENCODERS["cfn"](), sequences()
    w_u, w_i = encoder.gates_of_item.weight.detach().split(SIZE)
    b_u, b_i = encoder.gates_of_item.bias.detach().split(SIZE)
    u_z, u_i = encoder.gates_of_state.weight.detach().split(SIZE)
    w_a = encoder.content.weight.detach()
    for row in range(B):
        s = torch.zeros(SIZE)
        for t in torch.nonzero(present[row]).flatten():
            u = items[row, t]
            z = torch.sigmoid(u_z @ s + w_u @ u + b_u)
            i = torch.sigmoid(u_i @ s + w_i @ u + b_i)
            s = z * torch.tanh(s) + i * torch.tanh(w_a @ u)
        torch.testing.assert_close(encoder(items, present)[row].detach(), s)


def test_attention_is_its_equations_over_the_items_present() -> None:
    encoder = AttentionEncoder(N, H, SIZE, 2, 1, seeded(1))
    items, present = sequences()
    [block] = encoder.blocks
    for row in range(1, B):
        own = items[row, present[row]]
        x = encoder.embed(own) + encoder.positions[H - len(own) :]
        q = block.query(block.attention_norm(x))
        k, v = block.key_value(block.attention_norm(x)).split(SIZE, dim=1)
        newest = []
        for head in range(2):
            cut = slice(head * SIZE // 2, (head + 1) * SIZE // 2)
            scores = k[:, cut] @ q[-1, cut] / (SIZE // 2) ** 0.5
            newest.append(torch.softmax(scores, 0) @ v[:, cut])
        y = x[-1] + block.merge(torch.cat(newest))
        y = y + block.feed(block.feed_norm(y))
        torch.testing.assert_close(encoder(items, present)[row], encoder.norm(y))


@pytest.mark.parametrize("kind", ENCODERS)
def test_missing_items_do_not_matter_but_the_order_does(kind: str) -> None:
    encoder, (items, present) = ENCODERS[kind](), sequences()
    with torch.no_grad():
        seen = encoder(items, present)
        rubbish = torch.where(present.unsqueeze(2), items, 7.0)
        torch.testing.assert_close(encoder(rubbish, present), seen)
        for newest_last in (False, True):
            torch.testing.assert_close(encoder(*closed_up(items, present, newest_last=newest_last)), seen)
        backwards = encoder(items.flip(1), present.flip(1))
        assert (backwards[-1] - seen[-1]).abs().max() > 1e-3
        nothing = torch.zeros(1, H, dtype=torch.bool)
        torch.testing.assert_close(encoder(items[:1], nothing), encoder(items[1:2], nothing))


def test_attention_looks_back_only_and_never_at_what_is_missing() -> None:
    encoder, (items, present) = ENCODERS["attention"](), sequences()
    items, present = closed_up(items, present, newest_last=True)
    items.requires_grad_()
    at = 3
    [gradient] = torch.autograd.grad(encoder.sequence(items, present, last=H)[:, at].square().sum(), items)
    assert not gradient[:, at + 1 :].any()
    assert not gradient[~present].any()
    assert gradient[-1, : at + 1].abs().sum(dim=1).min() > 0


@pytest.mark.parametrize("kind", ENCODERS)
def test_every_weight_of_an_encoder_learns(kind: str) -> None:
    encoder, (items, present) = ENCODERS[kind](), sequences()
    encoder(items, present)[:, ::2].square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_items_below_zero_are_zeros_and_learn_nothing() -> None:
    embedding = ItemEmbedding(5, SIZE, None, seeded(0))
    ids = torch.tensor([[0.0, -1.0, 3.0]])
    rows = embedding(ids)
    torch.testing.assert_close(rows[0, [0, 2]], embedding.table[[0, 3]])
    assert not rows[0, 1].any()
    rows.sum().backward()
    assert embedding.table.grad is not None
    assert embedding.table.grad.sum(dim=1).tolist() == [SIZE, 0, 0, SIZE, 0]


def test_known_items_go_through_a_learnt_layer_and_are_no_weights() -> None:
    features = np.arange(15, dtype=np.float32).reshape(5, 3)
    embedding = ItemEmbedding(5, SIZE, features, seeded(0))
    assert set(embedding.state_dict()) == {"layer.weight", "layer.bias"}
    rows = embedding(torch.tensor([[4, -1]]))
    torch.testing.assert_close(rows[0, 0], embedding.layer(torch.from_numpy(features[4])))
    assert not rows[0, 1].any()


def test_categories_are_one_hot_or_embedded() -> None:
    few = Categories(Part("place", 1, 3, (2,), True, 3, (2, 4)), SIZE, seeded(0))
    assert few(torch.tensor([[9.0, 1.0, 3.0]])).tolist() == [[0, 1, 0, 0, 0, 1]]
    many = Categories(Part("user", 0, 3, (3,), True, 999, (3, 1000, 2)), SIZE, seeded(0))
    seen = many(torch.tensor([[2.0, 999.0, 1.0]]))
    assert many.size == seen.shape[1] == 5 + SIZE
    assert seen[0, :5].tolist() == [0, 0, 1, 0, 1]
    torch.testing.assert_close(seen[0, 5:], many.embeddings[0].table[999])


def images(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, (2, *shape), generator=seeded(3), dtype=torch.uint8)


def task_of(*parts: Part, dtype: str = "float32", shape: tuple[int, ...] | None = None, **fields: Any) -> Task:
    return Task(
        observation_dtype=dtype,
        observation_shape=shape or (parts[-1].stop,),
        parts=parts,
        actions=DiscreteActions(3),
        **fields,
    )


def test_nature_cnn_is_three_convolutions_of_pixels_between_0_and_1() -> None:
    torso = make_torso(CONFIG, task_of(dtype="uint8", shape=(84, 84, 4)), seeded(0))
    assert torso.encoder.size == 64 * 7 * 7  # 84 -> 20 -> 9 -> 7, as in the paper
    pixels = images(84, 84, 4)
    x = pixels.permute(0, 3, 1, 2).float() / 255
    for layer, stride in zip(torso.encoder.layers[::2], (4, 2, 1), strict=True):
        x = functional.relu(functional.conv2d(x, layer.weight, layer.bias, stride=stride))
    expected = torso.layers(x.flatten(1))
    torch.testing.assert_close(torso(pixels), expected)
    standardised = task_of(dtype="uint8", shape=(84, 84, 4), normalise_observations=True)
    torch.testing.assert_close(
        make_torso(CONFIG, standardised, seeded(0)).normaliser(pixels)[0, 0], pixels[0, 0, 0, 0].float().clamp(-10, 10)
    )


@pytest.mark.parametrize(
    ("shape", "to_channels_first"),
    [
        ((40, 44, 3), lambda x: x.permute(0, 3, 1, 2)),
        ((3, 40, 44), lambda x: x),
        ((40, 44), lambda x: x.unsqueeze(1)),
        ((4, 40, 44), lambda x: x),
        ((2, 40, 44, 3), lambda x: x.permute(0, 1, 4, 2, 3).flatten(1, 2)),
        ((2, 3, 40, 44), lambda x: x.flatten(1, 2)),
    ],
    ids=lambda value: str(value) if isinstance(value, tuple) else None,
)
def test_every_order_of_an_image_is_understood(shape: tuple[int, ...], to_channels_first: Any) -> None:
    pixels = images(*shape).float()
    plain = to_channels_first(pixels)
    cnn = NatureCNN(shape, "relu", seeded(0))
    torch.testing.assert_close(cnn(pixels.flatten(1)), cnn.layers(plain).flatten(1))


def test_images_too_small_for_the_convolutions_are_refused_with_the_remedy() -> None:
    assert make_torso(CONFIG, task_of(dtype="uint8", shape=(36, 36, 1)), seeded(0)).encoder.size == 64
    small = task_of(dtype="uint8", shape=(35, 40, 3))
    with pytest.raises(ConfigError, match=r"shape \[35, 40, 3\].* 36 x 36 .*environment.wrappers.*torso: mlp"):
        make_torso(CONFIG, small, seeded(0))
    flat = make_torso(msgspec.structs.replace(CONFIG, torso="mlp"), small, seeded(0))
    assert flat.encoder is None and flat.normaliser(images(35, 40, 3)).max() <= 1.0


HISTORY_IDS = Part("history", 2, 5, (3,), True, 9)
HISTORY = Part("history", 2, 8, (3, 2), False)
OBSERVATION = Part("observation", 0, 2, (2,), False)
MASK = Part("action_mask", 8, 11, (3,), True, 1)


def test_auto_takes_what_fits() -> None:
    def kinds(task: Task) -> list[str]:
        encoder = make_torso(CONFIG, task, seeded(0)).encoder
        if encoder is None:
            return []
        pieces = getattr(encoder, "pieces", [encoder])
        return [type(getattr(piece, "encoder", None) or piece).__name__ for piece in pieces]

    assert (
        kinds(task_of(shape=(5,))) == kinds(task_of(shape=(4, 5))) == kinds(task_of(dtype="uint8", shape=(128,))) == []
    )
    assert (
        kinds(task_of(OBSERVATION, HISTORY_IDS))
        == kinds(task_of(OBSERVATION, HISTORY, MASK))
        == ["Numbers", "AttentionEncoder"]
    )
    assert kinds(task_of(Part("observation", 0, 1, (), True, 15, (16,)), dtype="int64", shape=())) == ["Categories"]
    assert kinds(task_of(dtype="uint8", shape=(64, 64, 3))) == kinds(task_of(shape=(64, 64, 3))) == ["NatureCNN"]


def test_parts_that_are_no_state_do_not_reach_the_features() -> None:
    task = task_of(
        OBSERVATION, HISTORY, MASK, Part("candidates", 11, 13, (2,), True, 9), Part("response", 13, 14, (1,), True, 1)
    )
    torso = make_torso(CONFIG, task, seeded(0))
    observation = torch.randn(4, 14, generator=seeded(1)).requires_grad_()
    [gradient] = torch.autograd.grad(torso(observation).sum(), observation)
    assert gradient[:, :8].abs().sum(dim=0).min() > 0 and not gradient[:, 8:].any()


@pytest.mark.parametrize("kind", ["mlp", *ENCODERS])
@pytest.mark.parametrize("ids", [True, False])
def test_histories_of_ids_and_of_features_may_have_gaps(kind: str, ids: bool) -> None:
    task = task_of(OBSERVATION, HISTORY_IDS if ids else HISTORY)
    torso = make_torso(msgspec.structs.replace(CONFIG, torso=kind), task, seeded(0))
    state = torch.randn(2, 2, generator=seeded(1))
    history = [[-1.0, 4, 7], [4.0, -1, 7]] if ids else [[0.0, 0, 1, 2, 3, 4], [1.0, 2, 0, 0, 3, 4]]
    features = torso(torch.cat([state[:1].expand(2, 2), torch.tensor(history)], dim=1))
    assert torch.isfinite(features).all()
    assert torch.allclose(features[0], features[1]) == (kind != "mlp")


@pytest.mark.parametrize("kind", ["gru", "cfn", "linear_rnn", "attention"])
def test_the_first_item_of_a_catalogue_is_an_item_too(kind: str) -> None:
    """Its id, 0, is neither missing nor any other's."""
    task = task_of(Part("history", 0, 3, (3,), True, 4))
    torso = make_torso(msgspec.structs.replace(CONFIG, torso=kind), task, seeded(0))
    features = torso(torch.tensor([[-1.0, -1.0, -1.0], [-1.0, -1.0, 0.0], [-1.0, -1.0, 1.0]]))
    assert not torch.allclose(features[0], features[1]) and not torch.allclose(features[1], features[2])


@pytest.mark.parametrize("kind", ENCODERS)
def test_stacked_observations_are_a_history_without_gaps(kind: str) -> None:
    torso = make_torso(msgspec.structs.replace(CONFIG, torso=kind), task_of(shape=(H, N)), seeded(0))
    items, _ = sequences()
    items[:, 2] = 0.0
    [history] = torso.encoder.pieces
    torch.testing.assert_close(history(items.flatten(1)), history.encoder(items, torch.ones(B, H, dtype=torch.bool)))
    torch.testing.assert_close(torso(items), torso.layers(history(items.flatten(1))))


def test_items_in_a_history_are_never_standardised() -> None:
    torso = make_torso(CONFIG, task_of(OBSERVATION, HISTORY, normalise_observations=True), seeded(0))
    torso.normaliser.set_moments({"observation_mean": np.full(8, 5.0), "observation_std": np.full(8, 2.0)})
    assert torso.normaliser(torch.full((1, 8), 7.0)).tolist() == [[1.0] * 2 + [7.0] * 6]


CHANGES: dict[str, tuple[Any, str]] = {
    "torso": ("mlp", "gru"),
    "activation": ("tanh", "gru"),
    "embedding_size": (6, "gru"),
    "encoder_size": (4, "gru"),
    "attention_heads": (4, "attention"),
    "attention_layers": (2, "attention"),
}


@pytest.mark.parametrize(("name", "change"), CHANGES.items(), ids=CHANGES)
def test_every_setting_of_a_torso_changes_the_features(name: str, change: tuple[Any, str]) -> None:
    value, kind = change
    task = task_of(OBSERVATION, HISTORY_IDS)
    observation = torch.tensor([[0.1, 0.2, 1, 5, 7]])
    before = msgspec.structs.replace(CONFIG, torso=kind)
    after = msgspec.structs.replace(before, **{name: value})
    features = [make_torso(config, task, seeded(0))(observation) for config in (before, before, after)]
    assert torch.equal(features[0], features[1]) and not torch.equal(features[0], features[2])


def test_generators_decide_every_weight_and_the_global_one_is_untouched() -> None:
    before = torch.get_rng_state()
    tasks = [task_of(OBSERVATION, HISTORY_IDS), task_of(OBSERVATION, Part("user", 2, 3, (), True, 999, (1000,)))]
    tasks.append(task_of(dtype="uint8", shape=(36, 36, 1)))
    for task in tasks:
        kinds = ["gru", "cfn", "linear_rnn", "attention"] if task.part("history") else ["auto"]
        for kind in kinds:
            config = msgspec.structs.replace(CONFIG, torso=kind, attention_layers=2 if kind == "attention" else 1)
            one, same, other = (make_torso(config, task, seeded(seed)).state_dict() for seed in (0, 0, 1))
            moved = {name for name in one if not torch.equal(one[name], other[name])}
            assert all(torch.equal(one[name], same[name]) for name in one)
            assert all("norm" in name for name in one.keys() - moved), kind
    assert torch.equal(before, torch.get_rng_state())


REFUSED: dict[str, tuple[str, Task, str]] = {
    "no image": ("nature_cnn", task_of(shape=(5,)), r"nature_cnn takes images, .* shape \[5\]; take auto"),
    "a dict": ("nature_cnn", task_of(OBSERVATION, MASK), "nature_cnn takes images, the environment observes a Dict"),
    "no history": ("gru", task_of(shape=(5,)), "gru takes a history, the environment has none;"),
    "no history part": ("attention", task_of(OBSERVATION, MASK), "attention takes a history, the environment has"),
    "mask alone": ("auto", task_of(Part("action_mask", 0, 3, (3,), True, 1)), "observes action_mask and nothing that"),
    "fractions": ("auto", task_of(Part("history", 0, 3, (3,), False)), r"shape \[3\]; give \[H\] item ids as whole"),
    "a cube": ("auto", task_of(Part("history", 0, 8, (2, 2, 2), False)), r"history has shape \[2, 2, 2\]; give"),
    "too few items": (
        "auto", task_of(OBSERVATION, HISTORY_IDS, item_embeddings=np.zeros((9, 2))), "to 9, but item_embeddings are 9;"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "task", "message"), REFUSED.values(), ids=REFUSED)
def test_torsos_refuse_what_they_cannot_take(kind: str, task: Task, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        make_torso(msgspec.structs.replace(CONFIG, torso=kind), task, seeded(0))
    assert "\n" not in str(caught.value)


def test_heads_divide_the_size_of_attention() -> None:
    with pytest.raises(ValueError, match="attention_heads 3 is no divisor of encoder_size 64"):
        AlgorithmConfig(attention_heads=3)
    with pytest.raises(ValueError, match="attention_heads and attention_layers do nothing with torso gru: drop them"):
        AlgorithmConfig(torso="gru", attention_layers=2)


@pytest.mark.parametrize(("name", "value"), [("encoder_size", 32), ("attention_heads", 4), ("attention_layers", 2)])
def test_settings_of_histories_are_refused_without_one(name: str, value: int) -> None:
    config = AlgorithmConfig(**{name: value})
    with pytest.raises(ConfigError, match=f"algorithm.{name} does nothing without a history: drop it"):
        make_torso(config, task_of(OBSERVATION), seeded(0))
    assert make_torso(config, task_of(OBSERVATION, HISTORY), seeded(0)).size > 0
    with pytest.raises(ValueError, match=name):
        AlgorithmConfig(torso="mlp", **{name: value})
