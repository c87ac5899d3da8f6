"""Ports that our processes listen on. One that is not free is an error of the settings, which names the setting."""

import errno
import os
import socket

from outwait.config.errors import ConfigError


def require_free(process: str, address: str, port: int, setting: str) -> None:
    """Try the port of a process before it is started. Raises ConfigError; see `not_free`."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        socket.create_server((address, port), family=family).close()
    except OSError as error:
        raise not_free(process, address, port, setting, error) from error


def not_free(process: str, address: str, port: int, setting: str, error: OSError) -> ConfigError:
    """The error for a process that cannot listen.

    Args:
        process: what it is, for people.
        address: where it should listen.
        port: where it should listen.
        setting: the setting or option that changes the port.
        error: why it cannot.
    """
    number = error.errno or 0
    reason = os.strerror(number) if number > 0 else str(error)  # that of a name which is not known is negative
    advice = f"Another program uses port {port}: stop it, or set {setting} to a free port"
    if error.errno != errno.EADDRINUSE:
        advice = f"Check {setting} and the address"
    return ConfigError(f"{process} cannot listen on {address}:{port} ({reason}). {advice}.")
