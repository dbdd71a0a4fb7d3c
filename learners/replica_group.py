"""Replicas over torch.distributed: gloo between hosts, NCCL between GPUs."""

from __future__ import annotations

import hashlib
import math
import socket
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from learners.replicas import Agreed
from replay_server.batches import SampleBatch
from replay_server.errors import ConfigError, Diverged, PeersLost

_Store: Any = dist.TCPStore  # type: ignore[attr-defined]
_Prefix: Any = dist.PrefixStore  # type: ignore[attr-defined]
_BACKLOG = 1024
_REASON_LENGTH = 200


class MeetingPlace:
    """Where replicas find each other: a small store that serves as long as this object lives.

    Args:
        host: address to listen at, and at no other; the system chooses the port.

    Attributes:
        address: HOST:PORT.
    """

    def __init__(self, host: str) -> None:
        with socket.create_server((host, 0), backlog=_BACKLOG) as listening:
            port = listening.getsockname()[1]
            descriptor = listening.detach()
        self._store = _Store(host, port, None, True, wait_for_workers=False, master_listen_fd=descriptor)
        self.address = f"{host}:{port}"


@dataclass(frozen=True)
class Membership:
    """A replica's place among the others.

    Attributes:
        rank: 0 to count - 1.
        count: how many replicas there are.
        meeting: HOST:PORT of their meeting place.
        host: address that the others reach this one at.
        meet_seconds: how long they may take to come together.
        answer_seconds: how long one waits for the others' part of an update.
    """

    rank: int
    count: int
    meeting: str
    host: str
    meet_seconds: float
    answer_seconds: float


class ReplicaGroup:
    """All replicas, seen from one of them; made when all have come. Implements `Replicas`.

    Between hosts gloo speaks TCP, neither encrypted nor authenticated. What the host decides goes over gloo; what is
    on a GPU stays there, and the host does not wait for it.

    Args:
        membership: which of them this is.
        device: torch device of the networks.

    Raises:
        PeersLost: they did not come together in time.
        ConfigError: they have different kinds of devices.
    """

    def __init__(self, membership: Membership, device: str) -> None:
        self.rank, self.count = membership.rank, membership.count
        host, _, port = membership.meeting.rpartition(":")
        patience, answer = (timedelta(seconds=s) for s in (membership.meet_seconds, membership.answer_seconds))
        try:
            store = _Store(host, int(port), None, False, patience, wait_for_workers=False)
            self._check_devices(store, torch.device(device).type)
            options: Any = dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined]
            options._devices, options._timeout = [dist.ProcessGroupGloo.create_device(hostname=membership.host)], answer
            self._hosts = dist.ProcessGroupGloo(_Prefix("hosts", store), self.rank, self.count, options)
            self._devices: Any = self._hosts
            if torch.device(device).type == "cuda":
                nccl = dist.ProcessGroupNCCL.Options()
                nccl._timeout = answer
                self._devices = dist.ProcessGroupNCCL(_Prefix("devices", store), self.rank, self.count, nccl)
        except RuntimeError as error:
            raise self._lost(error) from error
        self._store = store

    def agree(self, batch: SampleBatch | None, *, more: bool) -> Agreed:
        """One exchange of four numbers; see Replicas.agree."""
        wish = 1.0 if self.rank or more else 0.0
        if batch is None:
            mine = (0.0, wish, math.inf, 0.0)
        else:
            mine = (1.0, wish, float(batch.probabilities.min()), -float(batch.inserted))
        vote = torch.tensor(mine, dtype=torch.float64)
        self._reduce(self._hosts, vote, dist.ReduceOp.MIN)
        ready, wish, least, minus_inserted = vote.tolist()
        if batch is None or not ready:
            return Agreed(None, bool(wish))
        return Agreed(replace(batch, least_probability=least, inserted=-int(minus_inserted)), bool(wish))

    def average(self, gradient: Tensor, loss: Tensor) -> Tensor:
        """One exchange of gradient and loss together; see Replicas.average."""
        both = torch.cat([gradient, loss.detach().view(1)])
        self._reduce(self._devices, both, dist.ReduceOp.SUM)
        both.div_(self.count)
        gradient.copy_(both[:-1])
        return both[-1]

    def gather(self, rows: Tensor) -> Tensor:
        """See Replicas.gather."""
        everyone = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(self.count)]
        try:
            self._devices.allgather([everyone], [rows.detach().contiguous()]).wait()
        except RuntimeError as error:
            raise self._lost(error) from error
        return torch.cat(everyone)

    def mine(self, rows: Tensor) -> Tensor:
        """See Replicas.mine."""
        return rows.chunk(self.count)[self.rank]

    def everywhere(self, holds: Tensor) -> Tensor:
        """See Replicas.everywhere."""
        flag = holds.float().view(1)
        self._reduce(self._devices, flag, dist.ReduceOp.MIN)
        return flag[0] > 0.0

    def all(self, holds: bool) -> bool:
        """See Replicas.all."""
        flag = torch.tensor([float(holds)])
        self._reduce(self._hosts, flag, dist.ReduceOp.MIN)
        return bool(flag[0] > 0.0)

    def check_same(self, arrays: Iterable[NDArray[Any]]) -> None:
        """By a digest of 48 bits; see Replicas.check_same."""
        digest = hashlib.blake2b(digest_size=6)  # float64 holds it exactly
        for array in arrays:
            digest.update(np.ascontiguousarray(array).tobytes())
        number = float(int.from_bytes(digest.digest(), "little"))
        bounds = torch.tensor([number, -number], dtype=torch.float64)
        self._reduce(self._hosts, bounds, dist.ReduceOp.MIN)
        if bounds[0] != -bounds[1]:
            raise Diverged(
                "the learner's processes do not hold the same weights any more; run them on machines of one kind with "
                "the same versions of everything, or set learner.processes to 1"
            )

    def _check_devices(self, store: Any, kind: str) -> None:
        store.set(f"device/{self.rank}", kind)
        kinds = [store.get(f"device/{rank}").decode() for rank in range(self.count)]
        if len(set(kinds)) > 1:
            found = ", ".join(kinds)
            raise ConfigError(
                f"learner.device: the learner's {self.count} processes found {found}; set it to cpu or cuda"
            )

    def _reduce(self, group: Any, tensor: Tensor, operation: Any) -> None:
        options = dist.AllreduceOptions()
        options.reduceOp = operation
        try:
            group.allreduce([tensor], options).wait()
        except RuntimeError as error:
            raise self._lost(error) from error

    def _lost(self, error: RuntimeError) -> PeersLost:
        reason = str(error).splitlines()[0][:_REASON_LENGTH]
        return PeersLost(f"process {self.rank} of the learner's {self.count} has lost the others ({reason})")
