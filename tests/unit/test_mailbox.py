"""Bodies of webhooks as they come in: whatever is sent, no more of it is in memory than may be kept."""

import gzip
import tracemalloc
import zlib

import pytest

from outwait.web.mailbox import HEAD, _Content

MOST = 100_000


def content(body: bytes, encoding: str = "", chunk: int = 65_536) -> tuple[bytes, int, str]:
    reader = _Content(MOST, encoding)
    for start in range(0, len(body), chunk):
        reader.add(body[start : start + chunk])
    return reader.end()


@pytest.mark.parametrize("chunk", [1, 7, 65_536])
@pytest.mark.parametrize("encoding", ["", "identity", "gzip", " GZIP", "x-gzip", "deflate"])
def test_a_body_is_read_in_whatever_pieces_it_comes(encoding: str, chunk: int) -> None:
    text = b'{"status": "Success"}' * 50
    pack = {"gzip": gzip.compress, "deflate": zlib.compress}.get(encoding.strip().lower().removeprefix("x-"), bytes)
    assert content(pack(text), encoding, chunk) == (text, len(pack(text)), "")


def test_a_bomb_takes_no_memory() -> None:
    bomb = gzip.compress(bytes(200_000_000), 9)
    tracemalloc.start()
    try:
        kept, size, problem = content(bomb, "gzip")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (len(kept), size, problem) == (HEAD, len(bomb), f"larger than {MOST} bytes (OUTWAIT_WEB__BODY_MAX)")
    assert peak < 10 * MOST


@pytest.mark.parametrize("over", [0, 1])
def test_the_largest_body_is_kept_whole_and_one_byte_more_is_not(over: int) -> None:
    kept, _, problem = content(bytes(MOST + over))
    assert (len(kept), bool(problem)) == ((HEAD, True) if over else (MOST, False))


def test_no_body_is_no_broken_gzip() -> None:
    assert content(b"", "gzip") == (b"", 0, "")
