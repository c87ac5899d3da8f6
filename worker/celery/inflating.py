"""Undoes the compression of Celery's messages within a limit: 1.3 KB of bzip2 can hold gigabytes.

Kombu inflates whole messages, and it undoes any of Python's codecs (`bz2` is one) in content that is neither JSON nor
refused. `bound` replaces both in this process; the intake, which reads its messages itself, calls `inflated`.
"""

import bz2
import lzma
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

from kombu import compression, serialization

LZMA_MEMORY = 96 * 1024 * 1024
"""Bytes that lzma's decoder may take: its strongest preset needs 65 MiB, a forged head could ask for 4 GiB."""

ZSTD_WINDOW = 25
"""Power of two of zstd's largest window: 32 MiB."""


class Uninflatable(ValueError):
    """The compression is unknown here, or damaged, or holds more than the limit."""


Inflate = Callable[[bytes, int], tuple[bytes, bool]]
"""Inflates so many bytes at most. Returns them, and whether they are all."""


def inflated(body: bytes, name: str, limit: int) -> bytes:
    """Undo a compression.

    Args:
        body: compressed.
        name: of the compression, as Celery's header has it; empty if there is none.
        limit: bytes that it may hold.

    Raises:
        Uninflatable: it cannot be undone here, or not within the limit.
    """
    known = _known()
    content_type = _content_type(name)
    if name and content_type not in known:
        raise Uninflatable(f"compression: given {name!r:.100}; workers here can read {', '.join(sorted(known))}")
    try:
        content, whole = known[content_type](body, limit + 1) if name else (body, True)
    except Exception as error:  # each compression raises its own errors
        raise Uninflatable(f"compression: the data is damaged: {type(error).__name__}: {error}") from error
    if len(content) > limit:
        raise Uninflatable(f"the message has more than {limit} bytes, after decompression")
    if not whole:
        raise Uninflatable("compression: the data is incomplete")
    return content


def bound(limit: int) -> None:
    """Let kombu inflate no more than `limit` bytes of a message in this process, and undo no codec."""
    for content_type in compression.encoders():
        encoder, _ = compression.get_encoder(content_type)
        compression.register(encoder, partial(inflated, name=content_type, limit=limit), content_type)
    for content_type in sorted(serialization.TRUSTED_CONTENT):  # what kombu reads without being asked
        serialization.register(content_type, None, bytes, content_type, "binary")


def _content_type(name: str) -> str:
    try:
        return str(compression.get_encoder(name)[1])
    except (KeyError, TypeError):  # TypeError: a header may hold any JSON
        return ""


def _known() -> dict[str, Inflate]:
    """What can be undone within a limit, of all that kombu reads here: it has brotli and zstd if they are installed."""
    formats: dict[str, Inflate] = {
        "application/x-gzip": lambda body, limit: _by_decoder(zlib.decompressobj(), body, limit),
        "application/x-bz2": lambda body, limit: _by_decoder(bz2.BZ2Decompressor(), body, limit),
        "application/x-lzma": lambda body, limit: _by_decoder(lzma.LZMADecompressor(memlimit=LZMA_MEMORY), body, limit),
        "application/zstd": _zstd,
        "application/x-brotli": _brotli,
    }
    return {name: formats[name] for name in compression.encoders() if name in formats}


def _by_decoder(decoder: Any, body: bytes, limit: int) -> tuple[bytes, bool]:
    return decoder.decompress(body, limit), decoder.eof


def _zstd(body: bytes, limit: int) -> tuple[bytes, bool]:
    zstd: Any = vars(compression)["zstd"]
    options = {zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW}
    return _by_decoder(zstd.ZstdDecompressor(options=options), body, limit)


def _brotli(body: bytes, limit: int) -> tuple[bytes, bool]:
    """Raises TypeError for a brotli before 1.2, which knows no limit."""
    decoder: Any = vars(compression)["brotli"].Decompressor()
    return decoder.process(body, output_buffer_limit=limit), decoder.is_finished()
