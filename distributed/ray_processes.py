"""Worker processes as Ray actors."""

from __future__ import annotations

from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from distributed.processes import Role
from distributed.ray_session import get


class RayProcesses:
    """Starts workers on the driver's own node: that is where the shards' addresses mean something.

    Ray restarts none of them but the weight store, which has no state that is not published again; the others need to
    be told where to go on.

    Args:
        gpu: the learner gets one.
    """

    def __init__(self, *, gpu: bool) -> None:
        self._gpu = gpu

    def spawn(self, cls: type, role: Role) -> Any:
        """A new Ray actor of a class."""
        options: dict[str, Any] = {"num_cpus": 1 if role in (Role.ACTOR, Role.LEARNER) else 0}
        if role is Role.LEARNER and self._gpu:
            options["num_gpus"] = 1
        if role is Role.STORE:
            options["max_restarts"] = -1
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        return ray.remote(cls).options(scheduling_strategy=here, **options).remote()

    def done(self, call: Any) -> bool:
        """Whether a call has ended, well or badly."""
        return bool(ray.wait([call], timeout=0)[0])

    def get(self, call: Any, seconds: float, who: str) -> Any:
        """The answer of a call; raises as `ray_session.get`."""
        return get(call, seconds, who)

    def kill(self, handle: Any) -> None:
        """End a process at once."""
        ray.kill(handle)
