"""Secrets taken out of texts that are logged, stored as an error or shown."""

import re
from collections.abc import Mapping
from itertools import islice
from typing import Any

from outwait.config.masking import MASK, is_secret, scrubbed

# Queries carry access tokens and signatures, paths our own webhook tokens, and "user:password@" passwords: of a URL
# only scheme and host are kept. Slashes may be escaped as JSON or as a query does.
_URL = re.compile(
    r"\b([a-z][a-z0-9+.-]*)(?:://|%3a%2f%2f|:\\/\\/)(?:[^\s\"'<>/\\?#@]*@)?([^\s\"'<>/\\?#%@]*)([^\s\"'<>]*)",
    re.IGNORECASE,
)


_LONG = 4000
"""Characters of a text that are looked at before it is shortened."""

_MANY = 50
"""Items of a list or an object that are looked at before it is shortened."""


def redact(text: str) -> str:
    """The text without credentials, and with every URL cut down to its scheme and host."""
    return scrubbed(_URL.sub(_cut, text) if ":" in text or "%3" in text else text)


def redact_all(value: Any) -> Any:
    """JSON data with every string in it redacted."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list):
        return [redact_all(item) for item in value]
    if isinstance(value, dict):
        return {key: redact_all(item) for key, item in value.items()}
    return value


def shown(params: Mapping[str, Any], most: int) -> str:
    """Parameters as people may see them: `most` characters, redacted, and no values whose names speak of a secret."""
    return repr(presentable(params))[:most]


def presentable(value: Any) -> Any:
    """JSON data as people may see it: redacted, no values whose names speak of a secret, long texts and lists cut."""
    if isinstance(value, str):
        return redact(value if len(value) <= _LONG else value[:_LONG].rpartition(" ")[0] + "…")  # no half URL
    if isinstance(value, list):
        return [presentable(item) for item in value[:_MANY]]
    if isinstance(value, Mapping):
        items = islice(value.items(), _MANY)
        return {
            key: MASK if is_secret(key) and not isinstance(item, bool) else presentable(item) for key, item in items
        }
    return value


def _cut(match: re.Match[str]) -> str:
    scheme, host, rest = match.groups()
    return f"{scheme}://{host}" + ("/…" if rest else "")
