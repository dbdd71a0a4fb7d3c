"""gRPC channel settings shared by both ends."""

from __future__ import annotations

from replay_server.wire import MAX_MESSAGE_BYTES

_MESSAGES = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES + 4096),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES + 4096),
]
_KEEPALIVE = [  # a peer that vanished without a word is noticed within about 8 s
    ("grpc.keepalive_time_ms", 5000),
    ("grpc.keepalive_timeout_ms", 3000),
    ("grpc.http2.max_pings_without_data", 0),
]

CLIENT_OPTIONS = [
    *_MESSAGES,
    *_KEEPALIVE,
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.use_local_subchannel_pool", 1),  # one connection a client
    ("grpc.enable_http_proxy", 0),
]

SERVER_OPTIONS = [
    *_MESSAGES,
    *_KEEPALIVE,
    ("grpc.so_reuseport", 0),  # else a second server on the port goes unseen
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 2000),
    ("grpc.http2.max_ping_strikes", 0),
]
