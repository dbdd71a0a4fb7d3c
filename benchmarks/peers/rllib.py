"""RLlib's weight sync (new API stack): `EnvRunnerGroup.sync_weights`, `python rllib.py SETTINGS_JSON`.

Started with {"actors": N}; prints {"ready": true, ...} when it can be asked, and then answers each line
`sync BYTES ACTORS VERSIONS` with {"latency_ms": [...], "publish_ms": [...], "bytes": B}: milliseconds from the call of
`sync_weights` until each of the first ACTORS environment runners has set the new weights, one number for each runner
and version, and of the call itself. Weights are those of a network with two equal hidden layers of about BYTES, B in
truth. Runners do nothing else meanwhile, their best case: one that samples takes weights when it is done.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import time
import traceback
from importlib.metadata import version
from typing import Any

import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

_SECONDS = 120.0


def model(size: int) -> DefaultModelConfig:
    """Two hidden layers with about so many bytes of weights."""
    # observation 4, two layers of h units, 2 actions and a value: h^2 + 8 h numbers of 4 bytes with a shared body
    units = max(round(-4.0 + math.sqrt(16.0 + size / 4.0)), 1)
    return DefaultModelConfig(fcnet_hiddens=[units, units], vf_share_layers=True)


class TimedRunner(SingleAgentEnvRunner):
    """Notes when it has set weights."""

    def __init__(self, **options: Any) -> None:
        torch.set_num_threads(1)
        self.times: list[float] = []
        super().__init__(**options)

    def resize(self, size: int) -> None:
        """A network of another size, made as this class makes its own."""
        self.config = self.config.copy(copy_frozen=False).rl_module(model_config=model(size))
        self.make_module()

    def set_state(self, state: Any) -> None:
        super().set_state(state)
        self.times.append(time.monotonic())


class Runners:
    """A group of so many runners; made once, because each takes seconds to start."""

    def __init__(self, actors: int) -> None:
        config = (
            PPOConfig()
            .environment("CartPole-v1")
            .framework("torch")
            .env_runners(
                env_runner_cls=TimedRunner, num_env_runners=actors, num_cpus_per_env_runner=0, num_envs_per_env_runner=1
            )
            .learners(num_learners=0)
            .rl_module(model_config=model(1))
        )
        self.group = EnvRunnerGroup(config=config, local_env_runner=True)

    def resize(self, size: int) -> None:
        self.group.foreach_env_runner(lambda runner: runner.resize(size), timeout_seconds=_SECONDS)
        weights = self.group.local_env_runner.module.state_dict()
        self.bytes = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())

    def sync(self, actors: int, versions: int) -> dict[str, Any]:
        latency, publish = [], []
        chosen = list(range(1, actors + 1))
        for turn in range(versions + 1):
            before = self._times(chosen)
            begin = time.monotonic()
            self.group.sync_weights(to_worker_indices=chosen, inference_only=True)
            took = time.monotonic() - begin
            after = self._times(chosen)
            while any(len(now) == len(then) for now, then in zip(after, before, strict=True)):
                if time.monotonic() > begin + _SECONDS:
                    raise TimeoutError("weights have not come")
                after = self._times(chosen)
            if turn:
                latency += [1e3 * (now[-1] - begin) for now in after]
                publish.append(1e3 * took)
        return {"latency_ms": latency, "publish_ms": publish, "bytes": self.bytes}

    def _times(self, chosen: list[int]) -> list[list[float]]:
        return self.group.foreach_env_runner(
            lambda runner: list(runner.times),
            local_env_runner=False,
            remote_worker_ids=chosen,
            timeout_seconds=_SECONDS,
        )


def main() -> None:
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    try:
        most = json.loads(sys.argv[1])["actors"]
        logging.getLogger("ray").setLevel(logging.ERROR)
        os.environ.setdefault("RAY_worker_niceness", "0")  # as ours: with Ray's own 15 anything else is served first
        ray.init(include_dashboard=False, logging_level="ERROR", log_to_driver=False, num_cpus=max(most, 1))
        runners, known = Runners(most), 0
        ready = {"ready": True, "RLlib": version("ray"), "its torch": torch.__version__}
        print(json.dumps(ready), file=replies)
        for line in sys.stdin:
            size, actors, versions = map(int, line.split()[1:])
            if size != known:
                runners.resize(size)
                known = size
            print(json.dumps(runners.sync(actors, versions)), file=replies)
    except Exception as error:
        traceback.print_exc()
        print(json.dumps({"error": f"{type(error).__name__}: {error}"[:300]}), file=replies)


main()
