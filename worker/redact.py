"""Secrets taken out of texts that are logged, stored as an error or shown."""

import re
from typing import Any

# Queries carry access tokens and signatures, paths our own webhook tokens, and "user:password@" passwords: of a URL
# only scheme and host are kept. Slashes may be escaped as JSON or as a query does.
_URL = re.compile(
    r"\b([a-z][a-z0-9+.-]*)(?:://|%3a%2f%2f|:\\/\\/)(?:[^\s\"'<>/\\?#@]*@)?([^\s\"'<>/\\?#%@]*)([^\s\"'<>]*)",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """The text with every URL cut down to its scheme and host."""
    return _URL.sub(_cut, text) if ":" in text or "%3" in text else text


def redact_all(value: Any) -> Any:
    """JSON data with every string in it redacted."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list):
        return [redact_all(item) for item in value]
    if isinstance(value, dict):
        return {key: redact_all(item) for key, item in value.items()}
    return value


def _cut(match: re.Match[str]) -> str:
    scheme, host, rest = match.groups()
    return f"{scheme}://{host}" + ("/…" if rest else "")
