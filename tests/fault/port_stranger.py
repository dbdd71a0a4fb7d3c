"""A program that asks everything a host listens at, without a token, what it would do for a stranger.

Arguments: the host, and its ports. Prints for each what it speaks, and how it answers.
"""

from __future__ import annotations

import http.client
import json
import sys
from typing import Any

import grpc

_PATHS = ("/", "/metrics", "/api/version", "/logs", "/api/healthz", "/api/jobs/", "/api/job_agent/jobs/")
_JOB = json.dumps({"entrypoint": "true"})
_METHODS = (
    "/ray.rpc.RayletDriver/ClusterInfo",
    "/ray.rpc.NodeManagerService/GetSystemConfig",
    "/ray.rpc.JobInfoGcsService/GetAllJobInfo",
    "/ray.rpc.InternalKVGcsService/InternalKVGet",
    "/ray.rpc.ObjectManagerService/Pull",
    "/ray.rpc.CoreWorkerService/PushTask",
)


def main(host: str, ports: list[int]) -> None:
    print(json.dumps({port: _ask(host, port) for port in ports}))


def _ask(host: str, port: int) -> dict[str, Any]:
    try:
        answers = {path: _http(host, port, "GET", path) for path in _PATHS}
        answers["submit"] = _http(host, port, "POST", "/api/job_agent/jobs/", _JOB)
    except ConnectionRefusedError:
        return {"speaks": "refused"}
    except (http.client.HTTPException, ConnectionError):
        return {"speaks": "grpc", "answers": {method: _grpc(host, port, method) for method in _METHODS}}
    return {"speaks": "http", "answers": answers}


def _http(host: str, port: int, method: str, path: str, body: str | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection(host, port, timeout=10.0)
    try:
        connection.request(method, path, body, {"content-type": "application/json"} if body else {})
        reply = connection.getresponse()
        return reply.status, reply.read(40).decode(errors="replace")
    finally:
        connection.close()


def _grpc(host: str, port: int, method: str) -> str:
    with grpc.insecure_channel(f"{host}:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(method)(b"", timeout=10.0)
        except grpc.RpcError as error:
            return str(error.code().name)
    return "OK"


if __name__ == "__main__":
    main(sys.argv[1], [int(port) for port in sys.argv[2:]])
