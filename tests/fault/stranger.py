"""A program that tries everything a shard can be asked, without the token, with a wrong one, and in plain text.

Arguments: HOST:PORT, the file of the shard's authority, the file of a wrong token. Prints what each try came to.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from replay_server import TLS, connect
from replay_server.channels import CLIENT_OPTIONS
from replay_server.errors import HeadraceError
from replay_server.wire import METHODS


def main(address: str, ca: str, wrong_token: str) -> None:
    os.environ.pop("HEADRACE_TOKEN", None)
    os.environ["GRPC_VERBOSITY"] = "NONE"
    wrong = (("authorization", f"Bearer {Path(wrong_token).read_text()}"),)
    trusting = grpc.ssl_channel_credentials(Path(ca).read_bytes())
    with grpc.secure_channel(address, trusting, options=CLIENT_OPTIONS) as channel:
        no_token = [_code(channel, method, ()) for method in METHODS]
        wrong_ones = [_code(channel, method, wrong) for method in METHODS]
    with grpc.insecure_channel(address, options=CLIENT_OPTIONS) as channel:
        plain = [_code(channel, method, wrong) for method in METHODS]
    tls = TLS(ca=ca)
    told = {
        "no_token": _told(lambda: connect([address], tls=tls)),
        "wrong_token": _told(lambda: connect([address], tls=tls, token_file=wrong_token)),
        "plain": _told(lambda: connect([address], timeout_s=5.0)),
        "token_in_plain": _told(lambda: connect([address], timeout_s=5.0, token_file=wrong_token)),
        "other_authority": _told(lambda: connect([address], timeout_s=5.0, tls=TLS(), token_file=wrong_token)),
    }
    codes = {"no_token": no_token, "wrong_token": wrong_ones, "plain": plain}
    print(json.dumps({"codes": codes, "told": told}))


def _code(channel: Any, method: str, metadata: Any) -> str:
    try:
        channel.unary_unary(f"/headrace.Replay/{method}")(b"", timeout=5.0, metadata=metadata)
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def _told(attempt: Callable[[], Any]) -> tuple[str, str]:
    """Class and text of the error."""
    try:
        attempt()
    except HeadraceError as error:
        return type(error).__name__, str(error)
    return "nothing", ""


if __name__ == "__main__":
    main(*sys.argv[1:])
