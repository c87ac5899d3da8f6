"""Removes secrets from texts that are logged, stored as an error or shown."""

import re
from collections.abc import Mapping
from itertools import islice
from typing import Any

from outwait.config.masking import MASK, TEXT_LIMIT, cut, is_secret, scrubbed

# Of a URL only scheme and host are kept: a query may hold access tokens and signatures, a path our webhook tokens, and
# "user:password@" a password. Slashes may be escaped as in JSON or in a query. The scheme stays, so nobody looks at it.
_URL = re.compile(
    r"(?:://|%3a%2f%2f|:\\/\\/)(?:[^\s\"'<>/\\?#@]*+@)?+([^\s\"'<>/\\?#%@]*+)([^\s\"'<>]*+)", re.IGNORECASE
)

_TEXT_LIMIT = 4000
"""Characters of a text that are shown."""

_ITEM_LIMIT = 50
"""Items of a list or an object that are shown."""


def redact(text: str, limit: int = TEXT_LIMIT) -> str:
    """The beginning of a text, without credentials, and with every URL cut down to its scheme and host.

    Args:
        text: of any length.
        limit: characters that are looked at. Cut by this, not before: half a credential has no form to be known by.
    """
    text = cut(text, limit)
    return scrubbed(_URL.sub(_host, text) if ":" in text or "%3" in text else text)


def redact_bytes(text: bytes, limit: int) -> str:
    """The same for bytes that are UTF-8, or nearly; only the beginning is decoded."""
    return redact(text[: bytes_of(limit)].decode(errors="replace"), limit)


def bytes_of(limit: int) -> int:
    """So many bytes have more than `limit` characters: what is cut there is seen to be cut."""
    return 4 * (limit + 1)


def redact_all(value: Any) -> Any:
    """JSON data with every string redacted."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list):
        return [redact_all(item) for item in value]
    if isinstance(value, dict):
        return {key: redact_all(item) for key, item in value.items()}
    return value


def shown(params: Mapping[str, Any], limit: int) -> str:
    """Parameters that are safe to show: at most `limit` characters, redacted, without values with a secret's name."""
    return repr(presentable(params))[:limit]


def presentable(value: Any) -> Any:
    """JSON data that is safe to show: redacted, without values with a secret's name, and with long parts cut."""
    if isinstance(value, str):
        return redact(value, _TEXT_LIMIT)
    if isinstance(value, list):
        return [presentable(item) for item in value[:_ITEM_LIMIT]]
    if isinstance(value, Mapping):
        items = islice(value.items(), _ITEM_LIMIT)
        return {
            key: MASK if is_secret(key) and not isinstance(item, bool) else presentable(item) for key, item in items
        }
    return value


def _host(match: re.Match[str]) -> str:
    host, rest = match.groups()
    return f"://{host}" + ("/…" if rest else "")
