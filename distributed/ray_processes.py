"""Worker processes as Ray actors."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from distributed.build import resolve_device
from distributed.cluster.roles import LEARNER, REPLAY
from distributed.config import ExperimentConfig
from distributed.processes import Role
from distributed.ray_session import get

_START_SECONDS = 120.0  # workers that import torch on a loaded machine
_NODE_SECONDS = 900.0  # nodes that an autoscaler has to start first
_PATIENCE_SECONDS = 20.0
_WITH_DRIVER = (Role.DRIVER, Role.STORE, Role.EVALUATOR)
_CUSTOM = {Role.SHARD: REPLAY, Role.LEARNER: LEARNER}


class RayProcesses:
    """Starts workers: on the only node of a private Ray, or over the nodes of a cluster.

    There, shards are spread over nodes and ask for a unit of the resource `replay`, each process of the learner asks
    for one of `learner`, where nodes offer them; actors go wherever a processor is free. Store and evaluator
    stay with the driver, and so does what is part of it (role `driver`), the file reader.

    Ray restarts none of them but the weight store, which has no state that is not published again, and the file reader;
    the others need to be told where to go on.

    Args:
        config: the experiment.
        private: Ray was started for this run alone.
    """

    def __init__(self, config: ExperimentConfig, *, private: bool) -> None:
        self._config = config
        self._private = private
        self._seen: frozenset[Any] = frozenset()
        self._ended: frozenset[Any] = frozenset()

    @property
    def room_seconds(self) -> float:
        """How long a new process may take to find room and to start."""
        return _START_SECONDS if self._private else _NODE_SECONDS

    @property
    def patience_seconds(self) -> float:
        """How long a run waits with its start for processes that it can do without: a private Ray has room for all."""
        return _START_SECONDS if self._private else _PATIENCE_SECONDS

    def spawn(self, cls: type, role: Role, *arguments: Any) -> Any:
        """A new Ray actor of a class."""
        options: dict[str, Any] = {"num_cpus": 1 if role in (Role.ACTOR, Role.LEARNER) else 0}
        if role is Role.LEARNER and self._wants_gpu():
            options["num_gpus"] = 1
        if role in (Role.STORE, Role.DRIVER):
            options["max_restarts"] = -1
        if not self._private and (name := _CUSTOM.get(role)) is not None and self._offered(name):
            options["resources"] = {name: 1}
        own = getattr(cls, "RAY_OPTIONS", None)
        actor: Any = ray.remote(cls) if own is None else ray.remote(**own)(cls)
        return actor.options(scheduling_strategy=self._strategy(role), **options).remote(*arguments)

    def ask(self, handle: Any, method: str) -> Any:
        """A call of a method without arguments."""
        return getattr(handle, method).remote()

    def look(self, calls: Sequence[Any], seconds: float) -> None:
        """Wait until one of the calls has ended, and see which of them have: what `done` then says of these.

        One question for all: with one for each, hundreds of workers keep their driver busy.

        Args:
            calls: in flight, each once.
            seconds: to wait for the first.
        """
        if calls:
            ray.wait(list(calls), timeout=seconds)
            ended, _ = ray.wait(list(calls), num_returns=len(calls), timeout=0)
            self._seen, self._ended = frozenset(calls), frozenset(ended)

    def done(self, call: Any) -> bool:
        """Whether a call has ended, well or badly; of those in the last `look`, whether it had then."""
        return call in self._ended if call in self._seen else bool(ray.wait([call], timeout=0)[0])

    def get(self, call: Any, seconds: float, who: str) -> Any:
        """The answer of a call; raises as `ray_session.get`."""
        return get(call, seconds, who)

    def start_again(self, handle: Any) -> None:
        """End a process at once that Ray restarts, under the same handle."""
        ray.kill(handle, no_restart=False)

    def kill(self, handle: Any) -> None:
        """End a process at once."""
        with suppress(RayError):  # it is gone, with Ray itself perhaps
            ray.kill(handle)

    def _strategy(self, role: Role) -> Any:
        if self._private or role in _WITH_DRIVER:
            return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        return "SPREAD" if role is Role.SHARD else "DEFAULT"

    def _offered(self, name: str) -> bool:
        return self._config.ray.placement == "roles" or _total(name) >= 1

    def _wants_gpu(self) -> bool:
        device = self._config.learner.device
        if self._private:
            return resolve_device(device).startswith("cuda")
        return device == "cuda" or (device == "auto" and _total("GPU") >= self._config.learner.processes)


def _total(name: str) -> float:
    """Of a resource, over all nodes there are now."""
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return resources.get(name, 0.0)
