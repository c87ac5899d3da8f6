"""A request's URL is the one that httpx would read from the whole text."""

import httpx
import pytest

from outwait.worker.providers.contract import below

BASES = [
    "http://a.example",
    "https://a.example:8443/api/v1",
    "http://127.0.0.1:8080/",
    "https://a.example/with%20space",
]

PATHS = [
    "/jobs",
    "/jobs/1f0c-2_3.4~5",
    "/jobs?id=a-b&x=%2Fy",
    "/jobs?",
    "/jobs?id=%zz",
    "/jobs/%2F",
    "/a/../b",
    "/a/./b",
    "/.hidden",
    "/a//b",
    "/a b",
    "/jobs?q='x'",
    "/jobs?q=ü",
    "/jobs/ü",
    "/jobs#part",
    "",
]


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("path", PATHS)
def test_a_url_below_a_base_is_the_parsed_one(base: str, path: str) -> None:
    url, parsed = below(httpx.URL(base), path), httpx.URL(base.rstrip("/") + path)
    assert (str(url), url.raw_path, url.netloc) == (str(parsed), parsed.raw_path, parsed.netloc)


def test_a_line_end_is_refused() -> None:
    with pytest.raises(httpx.InvalidURL):
        below(httpx.URL(BASES[0]), "/jobs\r\nx: y")


def test_the_base_stays_as_it_is() -> None:
    base = httpx.URL(BASES[1])
    below(base, "/jobs?id=1")
    assert str(base) == BASES[1]
