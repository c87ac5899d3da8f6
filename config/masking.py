"""Masks values before they are shown: secrets completely, URLs without their password."""

import re

MASK = "**"

_SECRET = re.compile(r"secret|token|key|password|passwd|jwt|auth|credential", re.IGNORECASE)
_PASSWORD = re.compile(r"(://[^:/@\s]*):\S*@")  # to the last @: a password may hold one
_BARE_PASSWORD = re.compile(r"^([^:/@\s]*):\S*@")
_OPTION = re.compile(
    r"([?&][^=&\s]*(?:secret|token|key|password|jwt|auth|signature|\bsig(?==))[^=&\s]*=)[^&\s\"']*", re.IGNORECASE
)

_URL_PASSWORD = re.compile(r"(://[^:/@\s]*):[^/@\s]+@")
_SCHEME = re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]{6,}", re.IGNORECASE)
_NAMED = re.compile(
    r"((?:authorization|access_token|refresh_token|api[-_]?token|api[-_]?key|client[-_]?secret|password|assertion|jwt)"
    r"[\"']?\s*[:=]\s*[\"']?)(?!(?:Bearer|Basic)\b)[^\s\"',&;}]+",
    re.IGNORECASE,
)

_RULES = (
    (("://",), _URL_PASSWORD, rf"\1:{MASK}@"),
    (("=",), _OPTION, rf"\1{MASK}"),
    (("bearer", "basic"), _SCHEME, rf"\1 {MASK}"),
    (("auth", "token", "key", "secret", "password", "assertion", "jwt"), _NAMED, rf"\1{MASK}"),
    # Secrets that Outwait makes itself. The id of an API key stays visible.
    (("ow_",), re.compile(r"\b(ow_[0-9a-f]{8}_)[\w-]{8,}"), rf"\1{MASK}"),
    (("whsec_",), re.compile(r"\b(whsec_)[\w+/=-]{8,}"), rf"\1{MASK}"),
    (("/webhooks/",), re.compile(r"(/webhooks/[\w.-]+/)[^\s\"'<>?#]+"), rf"\1{MASK}"),
)
"""Words, and the pattern to search for if one of them occurs: searching for a word is a hundred times faster."""

_TEXT_LIMIT = 20_000
"""Characters of a text that are searched and shown; a handler's error may have megabytes."""


def is_secret(name: str) -> bool:
    """Whether the value of a setting, header or parameter of this name must not be shown."""
    return bool(_SECRET.search(name)) and not is_url(name)


def is_url(name: str) -> bool:
    """Whether the value is a URL, in which only the password is secret."""
    return name.lower().endswith("url")


def masked_url(text: str) -> str:
    """A URL without its password and without tokens in its query."""
    password = _PASSWORD if "://" in text else _BARE_PASSWORD
    return _OPTION.sub(rf"\1{MASK}", password.sub(rf"\1:{MASK}@", text))


def masked(name: str, value: object) -> str:
    """The value of a setting, safe to show."""
    text = str(value)
    if is_url(name):
        return masked_url(text)
    if is_secret(name):
        return MASK if text else ""
    return masked_url(text) if "://" in text else text


def scrubbed(text: str) -> str:
    """A text without credentials: passwords in URLs, tokens in queries, headers and JSON, and our own keys."""
    if len(text) > _TEXT_LIMIT:
        text = text[:_TEXT_LIMIT].rpartition(" ")[0] + "…"  # a credential is not cut in the middle
    lower = text.lower()
    for words, pattern, kept in _RULES:
        if any(word in lower for word in words):
            text = pattern.sub(kept, text)
    return text
