"""What a shard tells of itself in JSON: its greeting and its statistics."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from replay_server.errors import SchemaMismatch
from replay_server.messages import Hello
from replay_server.replay import ShardStats
from replay_server.specs import RecordSpec


def hello_document(hello: Hello) -> dict[str, Any]:
    return {
        "address": hello.address,
        "table": hello.table,
        "shard": hello.shard,
        "incarnation": hello.incarnation,
        "capacity": hello.capacity,
        "min_size": hello.min_size,
        "max_message_bytes": hello.max_message_bytes,
        "max_request_bytes": hello.max_request_bytes,
        "spec": json.loads(hello.spec.to_json()),
        "durability": hello.durability,
        "consuming": hello.consuming,
        "shared_memory": hello.shared_memory,
    }


def hello_from(document: dict[str, Any]) -> Hello:
    try:
        spec = RecordSpec.from_json(json.dumps(document["spec"]))
        return Hello(
            address=str(document["address"]),
            table=str(document["table"]),
            shard=int(document["shard"]),
            incarnation=int(document["incarnation"]),
            capacity=int(document["capacity"]),
            min_size=int(document["min_size"]),
            max_message_bytes=int(document["max_message_bytes"]),
            max_request_bytes=int(document["max_request_bytes"]),
            spec=spec,
            durability=str(document["durability"]),
            consuming=bool(document["consuming"]),
            shared_memory=bool(document["shared_memory"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise SchemaMismatch(f"the shard's greeting is not understood: {error}") from None


def stats_from(document: dict[str, Any]) -> ShardStats:
    try:
        return msgspec.convert(document, ShardStats)
    except msgspec.ValidationError as error:
        raise SchemaMismatch(f"the shard's statistics are not understood: {error}") from None
