"""gRPC channel settings shared by both ends."""

from __future__ import annotations

from replay_server.specs import RecordSpec
from replay_server.wire import MAX_REPLY_BYTES, max_request_bytes

_KEEPALIVE = [  # a peer that vanished without a word is noticed within about 8 s
    ("grpc.keepalive_time_ms", 5000),
    ("grpc.keepalive_timeout_ms", 3000),
    ("grpc.http2.max_pings_without_data", 0),
]

CLIENT_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_REPLY_BYTES),
    ("grpc.max_send_message_length", -1),  # the server says what it takes
    ("grpc.http2.max_frame_size", 4 << 20),  # a large reply in few pieces
    ("grpc.http2.bdp_probe", 0),  # nor any waiting for a window to grow
    ("grpc.http2.lookahead_bytes", 8 << 20),
    *_KEEPALIVE,
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.use_local_subchannel_pool", 1),  # one connection a client
    ("grpc.enable_http_proxy", 0),
]

WINDOW_BYTES = 256 << 10
"""What a call may send to a server that has not begun to read it."""

_STREAMS = 64
_HANDSHAKE_MS = 10_000


def server_options(spec: RecordSpec) -> list[tuple[str, int]]:
    """Requests are far smaller than replies, so that what clients send cannot fill a server's memory."""
    return [
        ("grpc.max_receive_message_length", max_request_bytes(spec)),
        ("grpc.max_send_message_length", MAX_REPLY_BYTES),
        ("grpc.http2.bdp_probe", 0),  # windows stay as they are: they are memory that clients fill unasked
        ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
        *_KEEPALIVE,
        ("grpc.so_reuseport", 0),  # else a second server on the port goes unseen
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 2000),
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.max_concurrent_streams", _STREAMS),  # of one connection; the others of a client wait there
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),  # who connects and says nothing is sent away
    ]
