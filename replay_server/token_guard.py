"""Turns away calls without the shard's token, before anything of them is read."""

from __future__ import annotations

from typing import Any

import grpc

from replay_server import wire
from replay_server.call_meter import CallMeter
from replay_server.errors import Unauthenticated
from replay_server.health import HEALTH_SERVICE
from replay_server.security import TOKEN_VARIABLE, Token

_OPEN = f"/{HEALTH_SERVICE}/Check"
"""Says only whether the shard serves; what starts and stops containers asks it and knows no token."""


class TokenGuard(grpc.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """Every call but a single health check needs the token.

    Args:
        token: what callers must show.
        meter: counts who was turned away.
    """

    def __init__(self, token: Token, meter: CallMeter) -> None:
        self._token = token
        self._meter = meter
        # takes a stream, and never looks at it: a handler of one message would have a thread wait for the message
        self._refusal = grpc.stream_unary_rpc_method_handler(self._refuse)

    def intercept_service(self, continuation: Any, call: Any) -> Any:
        if call.method == _OPEN or self._token.admits(call.invocation_metadata):
            return continuation(call)
        return self._refusal

    def _refuse(self, _: Any, context: Any) -> bytes:
        self._meter.refused(Unauthenticated.__name__)
        given = any(key == "authorization" for key, _ in context.invocation_metadata())
        what = "the token is not this shard's" if given else "no token was given"
        error = Unauthenticated(f"{what}: pass token_file=FILE to connect, or set {TOKEN_VARIABLE}")
        context.abort(grpc.StatusCode.UNAUTHENTICATED, wire.encode_error(error))
        raise error
