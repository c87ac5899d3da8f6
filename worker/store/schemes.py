"""Says whether a URL asks for TLS where there is none, or does not where there is: the errors of both say little."""

import socket
import ssl

from outwait.config.urls import RedisAddress

WITHIN = 1.0
"""Seconds for one server's answer."""


def scheme_advice(address: RedisAddress) -> str:
    """What to change in the URL; empty if its servers do not answer in another way either."""
    wanted, speaks = ("without TLS", _speaks_plainly) if address.tls is not None else ("with TLS", _speaks_tls)
    direct, managed = ("redis://", "sentinel://") if address.tls is not None else ("rediss://", "sentinels://")
    for host, port in address.hosts:
        if speaks(host, port):
            scheme = managed if address.master else direct
            return f"{host}:{port} answers {wanted}: begin OUTWAIT_REDIS_URL with {scheme} (docs/operations.md)."
    return ""


def _speaks_tls(host: str, port: int) -> bool:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent to it
    try:
        with socket.create_connection((host, port), WITHIN) as plain, context.wrap_socket(plain):
            return True
    except OSError:
        return False


def _speaks_plainly(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), WITHIN) as plain:
            plain.sendall(b"PING\r\n")
            return plain.recv(1) in (b"+", b"-")
    except OSError:
        return False
