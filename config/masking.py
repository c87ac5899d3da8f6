"""Masks values before they are shown: secrets completely, URLs without their password."""

import re

MASK = "**"

_SECRET = re.compile(r"secret|token|key|password|passwd|jwt|auth|credential", re.IGNORECASE)
_WORD = re.compile(r"\S++")
_USER = re.compile(r"://[^:/@\s]*+:")
_BARE_PASSWORD = re.compile(r"^([^:/@\s]*):\S*@")

_OPTION = re.compile(r"[?&]([^=&\s]*+)(=?)")
_SECRET_OPTION = re.compile(r"secret|token|key|password|jwt|auth|signature|\bsig\Z", re.IGNORECASE)
_OPTION_VALUE = re.compile(r"[^&\s\"']*+")

# Each pattern looks at a character a bounded number of times: tests/attacks/test_patterns.py counts.
_URL_PASSWORD = re.compile(r"(://[^:/@\s]*):[^/@\s]+@")
_SCHEME = re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]{6,}", re.IGNORECASE)
_NAMED = re.compile(
    r"((?:authorization|access_token|refresh_token|api[-_]?token|api[-_]?key|client[-_]?secret|password|assertion|jwt)"
    r"[\"']?\s*[:=]\s*[\"']?)(?!(?:Bearer|Basic)\b)[^\s\"',&;}]+",
    re.IGNORECASE,
)

_RULES = (
    (("://",), _URL_PASSWORD, rf"\1:{MASK}@"),
    (("bearer", "basic"), _SCHEME, rf"\1 {MASK}"),
    (("auth", "token", "key", "secret", "password", "assertion", "jwt"), _NAMED, rf"\1{MASK}"),
    # Secrets that Outwait makes itself. The id of an API key stays visible.
    (("ow_",), re.compile(r"\b(ow_[0-9a-f]{8}_)[\w-]{8,}"), rf"\1{MASK}"),
    (("whsec_",), re.compile(r"\b(whsec_)[\w+/=-]{8,}"), rf"\1{MASK}"),
    (("/webhooks/",), re.compile(r"(/webhooks/[\w.-]+/)[^\s\"'<>?#]+"), rf"\1{MASK}"),
)
"""Words, and the pattern to search for if one of them occurs: searching for a word is a hundred times faster."""

TEXT_LIMIT = 20_000
"""Characters of a text that are searched and shown; a handler's error may have megabytes."""


def is_secret(name: str) -> bool:
    """Whether the value of a setting, header or parameter of this name must not be shown."""
    return bool(_SECRET.search(name)) and not is_url(name)


def is_url(name: str) -> bool:
    """Whether the value is a URL, in which only the password is secret."""
    return name.lower().endswith("url")


def masked_url(text: str) -> str:
    """A URL without its password and without tokens in its query."""
    if "://" in text:
        return _without_options(_WORD.sub(_without_password, text))
    return _without_options(_BARE_PASSWORD.sub(rf"\1:{MASK}@", text))


def _without_password(word: re.Match[str]) -> str:
    """The word without what stands between a URL's user and the last @: a password may hold one."""
    before, at, after = word[0].rpartition("@")
    user = _USER.search(before)
    return f"{before[: user.end()]}{MASK}{at}{after}" if user else word[0]


def _without_options(text: str) -> str:
    """The text without the values of options, as in a query, whose names are like a secret's."""
    parts, end, place = [], 0, 0
    while option := _OPTION.search(text, place):
        name, equals = option.groups()
        place = option.end()
        if equals and _SECRET_OPTION.search(name) and (value := _OPTION_VALUE.match(text, place)):
            parts += [text[end:place], MASK]
            place = end = value.end()
    return "".join([*parts, text[end:]])


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
    text = cut(text, TEXT_LIMIT)
    lower = text.lower()
    for words, pattern, kept in _RULES:
        if any(word in lower for word in words):
            text = pattern.sub(kept, text)
    return _without_options(text) if "=" in text else text


def cut(text: str, limit: int) -> str:
    """The beginning of a text, without the word in which it is cut: half a credential has no form to be known by."""
    if len(text) <= limit:
        return text
    beginning = text[:limit]  # letters and digits alone are no credential that would be known by its form
    return (beginning if beginning.isalnum() else beginning.rpartition(" ")[0]) + "…"
