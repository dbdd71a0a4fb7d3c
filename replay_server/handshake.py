"""Why no connection comes about: gRPC only says that it could not connect."""

from __future__ import annotations

import socket
import ssl

from replay_server.errors import ConfigError, Unauthenticated
from replay_server.security import ClientSecurity, split_address


def check_handshake(address: str, security: ClientSecurity, timeout_s: float) -> str:
    """Try what a connection begins with; for after gRPC has failed.

    Returns:
        What there is when nothing is wrong with who trusts whom, to end a sentence.

    Raises:
        Unauthenticated: one side speaks TLS and the other does not, or one does not trust the other's certificate.
    """
    try:
        host, port = split_address(address)
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            if security.tls is None:
                _check_plaintext(connection, address)
            else:
                _check_tls(connection, address, security)
    except ConnectionRefusedError:
        return "nothing listens there"
    except (OSError, ConfigError) as error:
        return f"nothing can be reached there ({error})"
    return "something listens there, but it does not answer"


def untrusted(details: str, address: str) -> Unauthenticated | None:
    """What gRPC's words for a failed handshake mean to people; None when they say something else."""
    if "handshake failed" not in details.lower():
        return None
    _, found, reason = details.partition("OPENSSL_internal:")
    reason = reason.removesuffix(": OK").replace("_", " ").lower() if found else "they do not speak the same protocol"
    return Unauthenticated(
        f"the shard at {address} and this client do not trust each other ({reason}): look at the certificates of both"
    )


def _check_plaintext(connection: socket.socket, address: str) -> None:
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    try:
        with anybody.wrap_socket(connection):
            raise Unauthenticated(
                f"the shard at {address} speaks TLS: connect with tls=TLS(ca=FILE), its authority's certificate"
            )
    except (ssl.SSLError, OSError):
        return


def _check_tls(connection: socket.socket, address: str, security: ClientSecurity) -> None:
    host, _ = split_address(address)
    try:
        with security.context().wrap_socket(connection, server_hostname=host) as protected:
            welcome = _welcomed(protected)
    except ssl.SSLCertVerificationError as error:
        raise Unauthenticated(
            f"the certificate of the shard at {address} is not trusted: {error.verify_message.rstrip('.')}; "
            "tls.ca must hold the authority that signed it, and it must name that address and not have expired"
        ) from None
    except ssl.SSLError as error:
        if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"):
            raise Unauthenticated(
                f"the shard at {address} does not speak TLS: give it tls in its config, or connect without tls"
            ) from None
        raise
    if not welcome:
        raise Unauthenticated(
            f"the shard at {address} does not accept this client's certificate, or its lack of one: tls.certificate "
            "and tls.key must be signed by the shard's tls.client_ca and not have expired"
        )


def _welcomed(protected: ssl.SSLSocket) -> bool:
    """Whether the shard says anything; in TLS 1.3 it hangs up over our certificate only after the handshake."""
    try:
        return protected.recv(1) != b""
    except TimeoutError:
        return True
    except (ssl.SSLError, ConnectionError):
        return False
