"""Raw bytes over gRPC with nothing behind them: what the transport itself carries, a limit for benchmarks.

Same library, client settings, message sizes and number of threads as a shard. `python -m replay_server.echo`
serves on a free port of the loopback address, prints it, and ends with its standard input. It stands here and not with
the benchmarks because grpc is imported in this package only.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from replay_server.channels import CLIENT_OPTIONS
from replay_server.wire import MAX_REPLY_BYTES

_METHOD = "/headrace.Echo/Echo"
_THREADS = 32
_CALL_S = 30.0
_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_REPLY_BYTES),
    ("grpc.max_send_message_length", MAX_REPLY_BYTES),
]


class Echo:
    """Client of an echo server. A context manager: closes its connection.

    Args:
        address: HOST:PORT.
    """

    def __init__(self, address: str) -> None:
        self._channel: Any = grpc.insecure_channel(address, options=CLIENT_OPTIONS)
        self._call: Any = self._channel.unary_unary(_METHOD)

    def calls_per_second(self, request_bytes: int, reply_bytes: int, in_flight: int, seconds: float) -> float:
        """Calls a second with so many under way; requests carry at least 8 bytes.

        Raises:
            grpc.RpcError: the server is gone.
        """
        request = reply_bytes.to_bytes(8, "little") + bytes(max(request_bytes - 8, 0))
        pending = deque(self._call.future(request, timeout=_CALL_S) for _ in range(in_flight))
        done, begin = 0, time.perf_counter()
        while (took := time.perf_counter() - begin) < seconds:
            pending.popleft().result()
            pending.append(self._call.future(request, timeout=_CALL_S))
            done += 1
        for call in pending:
            call.result()
        return done / took

    def __enter__(self) -> Echo:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()


def main() -> None:
    """Serve until the standard input ends."""
    replies: dict[int, bytes] = {}

    def answer(request: bytes, _: Any) -> bytes:
        size = int.from_bytes(request[:8], "little")
        if size not in replies:
            replies.clear()
            replies[size] = bytes(size)
        return replies[size]

    _, service, method = _METHOD.split("/")
    handlers = {method: grpc.unary_unary_rpc_method_handler(answer)}
    server: Any = grpc.server(ThreadPoolExecutor(_THREADS), options=_OPTIONS)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"127.0.0.1:{port}", flush=True)
    sys.stdin.read()
    server.stop(None)


if __name__ == "__main__":
    main()
