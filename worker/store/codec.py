"""How requests, results and errors are written: JSON, deflated when large."""

import hashlib
import zlib
from base64 import b64encode
from typing import Any

import msgspec

from outwait.worker.model.jobs import JobError, JobRequest

_DEFLATED = b"x"  # first byte of every zlib stream; no JSON text begins with it


def blob(text: bytes, above: int) -> msgspec.Raw:
    """Text for a script, deflated if longer than `above` bytes."""
    return plain(zlib.compress(text, 6) if len(text) > above else text)


def plain(data: bytes) -> msgspec.Raw:
    """Bytes for a script, as they are.

    They travel as a msgpack string: Redis's msgpack knows no binary type, and Lua's strings are bytes anyway.
    """
    return msgspec.Raw(b"\xdb" + len(data).to_bytes(4, "big") + data)


def inflate(stored: bytes) -> bytes:
    """Undo the deflating of `blob`."""
    return zlib.decompress(stored) if stored[:1] == _DEFLATED else stored


def inflate_within(stored: bytes, limit: int) -> bytes | None:
    """The same, if it has at most `limit` bytes; None if it has more. No more than that is ever made of it."""
    if stored[:1] != _DEFLATED:
        return stored if len(stored) <= limit else None
    text = zlib.decompressobj().decompress(stored, limit + 1)
    return text if len(text) <= limit else None


def encode(value: Any) -> bytes:
    """JSON text of plain data."""
    return msgspec.json.encode(value)


def decode(stored: bytes) -> Any:
    """Plain data of stored JSON."""
    return msgspec.json.decode(inflate(stored))


def decode_error(stored: bytes) -> JobError:
    """A stored error."""
    return msgspec.json.decode(stored, type=JobError)


def digest(request: JobRequest) -> str:
    """What makes two requests the same: all but the idempotency key, priority, countdown and version.

    Priority and countdown only change when it is submitted. Stored jobs have their digests, so this stays as it is.
    """
    same = (request.provider, request.operation, request.params, request.targets, request.metadata, request.deadline)
    return fingerprint((*same, request.tenant) if request.tenant else same)


def fingerprint(value: Any) -> str:
    """96 bits of plain data's hash, printable. The order of keys does not matter."""
    text = msgspec.json.encode(value, order="deterministic")
    return b64encode(hashlib.blake2b(text, digest_size=12).digest()).decode()
