"""A TCP proxy that misbehaves on demand: it cuts connections at a chosen byte, or goes silent in one direction."""

from __future__ import annotations

import selectors
import socket
import struct
import threading
from dataclasses import dataclass

TO_SHARD, TO_CLIENT = "to shard", "to client"
_READ = 65_536
_TURN_S = 0.02


@dataclass(eq=False)
class _Pipe:
    """One direction of one connection."""

    source: socket.socket
    target: socket.socket
    direction: str


class Proxy:
    """Forwards connections to `target` from a thread of its own; `address` is where to connect.

    All controls may be used from other threads. A context manager.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._lock = threading.Lock()
        self._silent: set[str] = set()
        self._budget: dict[str, int] = {}
        self._pipes: dict[socket.socket, _Pipe] = {}
        self._ended = threading.Event()
        self.cuts = 0
        """Connections cut because a budget was spent."""
        self._thread = threading.Thread(target=self._run, name="proxy")
        self._thread.start()

    def silence(self, *directions: str) -> None:
        """Forward nothing these ways, and accept nobody, without closing anything: packets just do not arrive."""
        with self._lock:
            self._silent = set(directions)

    def cut_after(self, direction: str, size: int) -> None:
        """Reset every connection once `size` more bytes have been forwarded this way; new ones are accepted."""
        with self._lock:
            self._budget[direction] = size

    def cut(self) -> None:
        """Reset every connection now."""
        with self._lock:
            self._drop_all()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(10)
        with self._lock:
            self._drop_all()
        self._listener.close()

    def _run(self) -> None:
        while not self._ended.is_set():
            with self._lock:
                watched = [p for p in self._pipes.values() if p.direction not in self._silent]
                accepting = not self._silent
            with selectors.DefaultSelector() as selector:
                if accepting:
                    selector.register(self._listener, selectors.EVENT_READ)
                for pipe in watched:
                    if pipe.source.fileno() >= 0:
                        selector.register(pipe.source, selectors.EVENT_READ, pipe)
                ready = selector.select(_TURN_S)
            with self._lock:
                for key, _ in ready:
                    if key.data is None:
                        self._accept()
                    elif key.data.source in self._pipes and key.data.direction not in self._silent:
                        self._forward(key.data)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            shard = socket.create_connection(self._target, 1.0)
        except OSError:
            client.close()
            return
        shard.settimeout(1.0)
        client.settimeout(1.0)
        self._pipes[client] = _Pipe(client, shard, TO_SHARD)
        self._pipes[shard] = _Pipe(shard, client, TO_CLIENT)

    def _forward(self, pipe: _Pipe) -> None:
        left = self._budget.get(pipe.direction, _READ)
        try:
            data = pipe.source.recv(min(_READ, max(left, 1)))
            pipe.target.sendall(data[:left])
        except OSError:
            data = b""
        if not data:
            self._drop(pipe.source)
            self._drop(pipe.target)
        elif pipe.direction in self._budget:
            self._budget[pipe.direction] = left - len(data)
            if self._budget[pipe.direction] <= 0:
                del self._budget[pipe.direction]
                self.cuts += 1
                self._drop_all()

    def _drop(self, end: socket.socket) -> None:
        self._pipes.pop(end, None)
        end.close()

    def _drop_all(self) -> None:
        for end in list(self._pipes):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST, not FIN
            self._drop(end)
