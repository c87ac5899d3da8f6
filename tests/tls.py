"""A certificate for 127.0.0.1 that signs itself, and a Redis that speaks TLS."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.patience import PATIENCE


def certificate(folder: Path) -> tuple[Path, Path]:
    """Make it; the files of the certificate and of its key."""
    key, chain = folder / "key.pem", folder / "chain.pem"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    named = ["-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*made, *named, "-keyout", key, "-out", chain], check=True, capture_output=True)
    return chain, key


def tls_server() -> Path:
    """A server of this machine with TLS: the one that our dependencies bring has none."""
    for name in ("redis-server", "valkey-server"):
        if (path := shutil.which(name)) and _has_tls(path):
            return Path(path)
    missing = "no Redis with TLS was found: install one (`apt-get install redis-server`)"
    if os.environ.get("CI") == "true":
        pytest.fail(missing)
    pytest.skip(missing)


def _has_tls(program: str) -> bool:
    """Whether it misses its certificate, when it is started without one."""
    command = [program, "--port", "0", "--tls-port", "1"]
    asked = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    return "tls-cert-file" in asked.stdout
