"""The standard health service, `grpc.health.v1.Health`, of one shard."""

from __future__ import annotations

from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2

from replay_server.arrivals import Arrivals
from replay_server.errors import InvalidRecord
from replay_server.wire import SERVICE, encode_error

HEALTH_SERVICE = "grpc.health.v1.Health"


class Health:
    """Says whether the shard serves.

    `Check` needs no token and is answered for the shard as a whole without reading which service it names: whoever has
    no token must not make a thread wait for a message. Who watches takes no thread.

    Args:
        arrivals: reads what `Watch` names.
    """

    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals = arrivals
        self._servicer = health.HealthServicer(experimental_non_blocking=True)
        self._say(health_pb2.HealthCheckResponse.SERVING)

    def handlers(self) -> Any:
        """A generic gRPC handler."""
        tell = health_pb2.HealthCheckResponse.SerializeToString

        def check(_: Any, context: Any) -> Any:
            return self._servicer.Check(health_pb2.HealthCheckRequest(), context)

        def watch(messages: Any, context: Any, send: Any) -> None:
            try:
                named = self._arrivals.first(messages, context)
            except InvalidRecord as error:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, encode_error(error))
            self._servicer.Watch(named, context, send)

        watch.experimental_non_blocking = True  # type: ignore[attr-defined]  # how gRPC is told of `send`
        return grpc.method_handlers_generic_handler(
            HEALTH_SERVICE,
            {
                "Check": grpc.stream_unary_rpc_method_handler(check, response_serializer=tell),
                "Watch": grpc.stream_stream_rpc_method_handler(watch, health_pb2.HealthCheckRequest.FromString, tell),
            },
        )

    def serves_no_longer(self) -> None:
        """Report NOT_SERVING, while calls are still answered."""
        self._say(health_pb2.HealthCheckResponse.NOT_SERVING)

    def stop(self) -> None:
        """Tell who watches that the shard ends."""
        self._servicer.enter_graceful_shutdown()

    def _say(self, status: Any) -> None:
        for served in ("", SERVICE):
            self._servicer.set(served, status)
