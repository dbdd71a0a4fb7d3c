"""Golden values from Stable-Baselines3 in float64: `python tests/golden/make_sb3.py` writes sb3.json.

    python3.11 -m venv peers/sb3 && peers/sb3/bin/pip install -r tests/golden/sb3.requirements.txt

One gradient step of TD3's own `train()` with a step size of zero, so that critic and actor are differentiated at the
same weights; what its loss was given is noted on the way. DDPG is, there as here, TD3 without what TD3 added. Beside
them are whole updates of TD3 and DQN, with a step size.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3 import DDPG, DQN, TD3
from stable_baselines3.common import policies
from stable_baselines3.common.logger import configure
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.td3 import td3
from writing import case, write

SIZE, OBSERVATION, ACTION, HIDDEN, GAMMA = 9, 3, 2, 6, 0.95
NOISE, CLIP, RATE, STEPS = 0.4, 0.5, 1e-2, 4


class Blank(gymnasium.Env):
    """Only its spaces matter."""

    observation_space = gymnasium.spaces.Box(-5.0, 5.0, (OBSERVATION,))
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (ACTION,))


class Choices(Blank):
    """The same with three actions."""

    action_space = gymnasium.spaces.Discrete(3)


def batch(rng: np.random.Generator) -> ReplayBufferSamples:
    """Records of which two end an episode."""
    dones = np.zeros((SIZE, 1))
    dones[[2, 5]] = 1.0
    columns = (
        rng.normal(size=(SIZE, OBSERVATION)), rng.uniform(-1, 1, (SIZE, ACTION)), rng.normal(size=(SIZE, OBSERVATION)),
        dones, rng.normal(size=(SIZE, 1)),
    )  # fmt: skip
    return ReplayBufferSamples(*(torch.from_numpy(column) for column in columns))


def weights(module: torch.nn.Module) -> dict[str, Any]:
    """Parameters of the linear layers by name, `mu.0.weight` [out, in]."""
    return {name: parameter.detach().numpy().tolist() for name, parameter in module.named_parameters()}


def gradients(module: torch.nn.Module) -> dict[str, Any]:
    """The same of their gradients."""
    return {name: parameter.grad.numpy().tolist() for name, parameter in module.named_parameters()}


def step(kind: type[TD3], seed: int, **settings: Any) -> dict[str, Any]:
    """One gradient step on fresh networks."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    model = kind(
        "MlpPolicy", Blank(), learning_rate=0.0, gamma=GAMMA, buffer_size=10, policy_kwargs={"net_arch": [HIDDEN]},
        seed=seed, device="cpu", **settings,
    )  # fmt: skip
    model.policy_delay = 1
    for module in (model.actor, model.actor_target, model.critic, model.critic_target):
        for parameter in module.parameters():
            parameter.data = torch.from_numpy(rng.normal(size=parameter.shape) * 0.5)
    records, losses, noted = batch(rng), [], {}
    model.set_logger(configure(None, []))
    model.replay_buffer.sample = lambda *_, **__: records
    original, critic_step = td3.F.mse_loss, model.critic.optimizer.step

    def mse_loss(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        losses.append((prediction.detach(), target))
        return original(prediction, target)

    def note_critic_gradient() -> None:
        noted["critic"] = gradients(model.critic)
        critic_step()

    td3.F.mse_loss, model.critic.optimizer.step = mse_loss, note_critic_gradient
    torch.manual_seed(seed)
    noise = torch.empty(SIZE, ACTION).normal_(0, model.target_policy_noise).numpy()
    with torch.no_grad():
        proposed = model.actor_target(records.next_observations)
        clipped = torch.from_numpy(noise).clamp(-model.target_noise_clip, model.target_noise_clip)
        smoothed = (proposed + clipped).clamp(-1, 1)
        q_t = [q.squeeze(1).numpy().tolist() for q in model.critic_target(records.next_observations, smoothed)]
    inputs = {name: getattr(records, name).numpy() for name in ("observations", "actions", "next_observations")}
    inputs |= {
        "rewards": records.rewards.squeeze(1).numpy(),
        "discounts": GAMMA * (1 - records.dones.squeeze(1).numpy()),
    }
    inputs |= {"noise": noise, "noise_clip": float(model.target_noise_clip), "proposed": proposed.numpy(), "q_t": q_t}
    inputs |= {"weights": {name: weights(module) for name, module in networks(model).items()}}
    torch.manual_seed(seed)
    model.train(1, SIZE)
    td3.F.mse_loss = original
    return case(
        inputs | {"q_tm1": [prediction.squeeze(1).numpy().tolist() for prediction, _ in losses]},
        {
            "smoothed": smoothed.numpy(),
            "target": losses[0][1].squeeze(1).numpy(),
            "critic_loss": float(model.logger.name_to_value["train/critic_loss"]),
            "actor_loss": float(model.logger.name_to_value["train/actor_loss"]),
            "critic_gradients": noted["critic"],
            "actor_gradients": gradients(model.actor),
        },
    )


def networks(model: Any) -> dict[str, torch.nn.Module]:
    """Every network of a model by the name that golden values have for it."""
    if isinstance(model, DQN):
        return {"online": model.q_net, "target": model.q_net_target}
    return {
        "actor": model.actor, "actor_target": model.actor_target,
        "critics": model.critic, "critics_target": model.critic_target,
    }  # fmt: skip


def updates(kind: type[Any], seed: int, **settings: Any) -> dict[str, Any]:
    """Four whole gradient steps on one batch: losses, clipping, optimizers, order of steps, targets."""
    rng = np.random.default_rng(seed)
    model = kind(
        "MlpPolicy", Choices() if kind is DQN else Blank(), learning_rate=RATE, gamma=GAMMA, buffer_size=10,
        policy_kwargs={"net_arch": [HIDDEN]}, seed=seed, device="cpu", **settings,
    )  # fmt: skip
    for module in networks(model).values():
        for parameter in module.parameters():
            parameter.data.copy_(torch.from_numpy(rng.normal(size=parameter.shape) * 0.5))
    records = batch(rng)
    if kind is DQN:
        records = records._replace(actions=torch.from_numpy(rng.integers(0, 3, (SIZE, 1))))
    model.replay_buffer.sample = lambda *_, **__: records
    model.set_logger(configure(None, []))
    before = {name: weights(module) for name, module in networks(model).items()}
    model.train(STEPS, SIZE)
    inputs = {name: getattr(records, name).numpy() for name in ("observations", "next_observations")}
    inputs |= {"actions": records.actions.squeeze(1).numpy() if kind is DQN else records.actions.numpy()}
    inputs |= {"rewards": records.rewards.squeeze(1).numpy() * 1.0}
    inputs |= {"discounts": GAMMA * (1 - records.dones.squeeze(1).numpy()), "learning_rate": RATE, "steps": STEPS}
    return case(
        inputs | {"weights": before},
        {"weights": {name: weights(module) for name, module in networks(model).items()}},
    )


def main() -> None:
    """Losses, and whole updates, into one file."""
    torch.set_default_dtype(torch.float64)
    policies.preprocess_obs = lambda observation, *_, **__: observation  # it would make them float32
    smoothing = {"target_policy_noise": NOISE, "target_noise_clip": CLIP}
    cases = {
        "td3": step(TD3, 0, **smoothing),
        "ddpg": step(DDPG, 1),
        "td3_updates": updates(TD3, 2, target_policy_noise=1e-12, tau=0.05),
        "dqn_updates": updates(DQN, 3, max_grad_norm=0.1),
    }
    write("sb3", ("stable-baselines3", "torch"), cases)


if __name__ == "__main__":
    main()
