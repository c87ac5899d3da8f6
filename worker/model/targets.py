"""Targets: the names and URIs of handlers in jobs and routes. No I/O.

A target is parsed once, where it enters. Its canonical form names the lane of its handler.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv6Address
from pathlib import PurePosixPath
from urllib.parse import parse_qsl, unquote, urlsplit

from outwait.config.groups import Route
from outwait.config.masking import masked_url
from outwait.config.reserved import CELERY_QUEUE
from outwait.worker.model.errors import InvalidRequest

NAME = re.compile(r"[a-z][a-z0-9_-]{0,59}")
"""The form of a handler function's name."""

FORMS = (
    "a handler's name (crm), https://host/path, celery://task.name?queue=name, stream://key?maxlen=1000 or "
    "file:name.jsonl"
)

# Braces are left out: they mark the hash tag of the store's keys, which no target may reach. The other characters that
# are left out would need escapes; then one handler could be written in two ways, and would have two lanes.
_WORD = re.compile(r"[A-Za-z0-9_.:@/-]{1,200}")
_FILE_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}")
_MAXLEN = re.compile(r"0*[1-9][0-9]{0,11}")
_URL = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?\[\]-]|%[0-9A-Fa-f]{2})+")
_HOST = re.compile(
    r"(?=.{1,253}$)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*"
)
_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class FunctionTarget:
    """A Python function marked `@handler(name)`."""

    name: str


@dataclass(frozen=True, slots=True)
class CeleryTarget:
    """A task of another Celery app on the same broker."""

    task: str
    queue: str = CELERY_QUEUE


@dataclass(frozen=True, slots=True)
class StreamTarget:
    """A Redis stream; it is trimmed to about `maxlen` entries if that is given."""

    key: str
    maxlen: int | None = None


@dataclass(frozen=True, slots=True)
class FileTarget:
    """A JSON Lines file; `path` is relative to OUTWAIT_HANDLERS__FOLDER."""

    path: str


@dataclass(frozen=True, slots=True)
class WebhookTarget:
    """A receiver of signed webhooks; `url` is in its canonical form."""

    url: str

    @property
    def receiver(self) -> str:
        """The URL without its query. It identifies the receiver: its secret, and whether it is disabled."""
        return self.url.partition("?")[0]

    @property
    def host(self) -> str:
        """A name or an address, without brackets."""
        return urlsplit(self.url).hostname or ""

    @property
    def encrypted(self) -> bool:
        """Whether it is https."""
        return self.url.startswith("https:")


Target = FunctionTarget | CeleryTarget | StreamTarget | FileTarget | WebhookTarget


def parse(target: str) -> Target:
    """Read a target.

    Raises:
        InvalidRequest: it is not a valid target; the message says why, and which forms exist.
    """
    scheme, colon, rest = target.partition(":")
    try:
        return _by_scheme(scheme.lower(), rest) if colon else FunctionTarget(_name(target))
    except ValueError as error:
        raise InvalidRequest(f"invalid target {masked_url(target)[:200]!r}: {error}. A target is {FORMS}") from None


def canonical(target: Target) -> str:
    """The one way to write a target, and the name of its handler's lane. `parse` reads it back."""
    match target:
        case FunctionTarget(name):
            return name
        case CeleryTarget(task, queue):
            return f"celery://{task}" if queue == CELERY_QUEUE else f"celery://{task}?queue={queue}"
        case StreamTarget(key, maxlen):
            return f"stream://{key}" if maxlen is None else f"stream://{key}?maxlen={maxlen}"
        case FileTarget(path):
            return f"file:{path}"
        case WebhookTarget(url):
            return url


def allowed(target: str, patterns: Sequence[str]) -> bool:
    """Whether one of the patterns allows a target (in canonical form).

    A pattern without a scheme matches only handlers' names, so that `*` allows no stream and no file. In the pattern of
    a URL, host and path are matched separately, so that no path counts as a host. Without a path it matches any path.
    """
    return any(_matches(target, pattern) for pattern in patterns)


def route(routes: Sequence[Route], provider: str, operation: str) -> tuple[str, ...]:
    """The targets (in canonical form) of the first route that matches; empty if none matches.

    Raises:
        InvalidRequest: a target of the route is invalid.
    """
    for candidate in routes:
        if candidate.provider in (None, provider) and candidate.operation in (None, operation):
            return tuple(dict.fromkeys(canonical(parse(target)) for target in candidate.targets))
    return ()


def _by_scheme(scheme: str, rest: str) -> Target:
    match scheme:
        case "celery":
            task, options = _address(rest, "queue")
            return CeleryTarget(_word(task, "task name"), _word(options.get("queue", CELERY_QUEUE), "queue"))
        case "stream":
            key, options = _address(rest, "maxlen")
            return StreamTarget(_word(key, "stream key"), _maxlen(options.get("maxlen")))
        case "file":
            return FileTarget(_file(rest.removeprefix("//")))
        case "http" | "https":
            return WebhookTarget(_webhook(f"{scheme.lower()}:{rest}"))
        case _:
            raise ValueError(f"the scheme {scheme[:40]!r} is unknown")


def _address(rest: str, option: str) -> tuple[str, dict[str, str]]:
    """The text between `//` and `?`, and the options after it, of which only `option` is allowed."""
    if not rest.startswith("//"):
        raise ValueError("'//' must follow the scheme")
    address, _, query = rest[2:].partition("?")
    pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    if any(name != option for name, _ in pairs) or len(pairs) > 1:
        raise ValueError(f"the only option allowed is {option!r}, given once")
    return address, dict(pairs)


def _matches(target: str, pattern: str) -> bool:
    scheme, colon, _ = pattern.partition(":")
    if scheme not in _PORTS:
        return (":" in target) is bool(colon) and fnmatchcase(target, pattern)
    (base, path), (base_pattern, path_pattern) = _split(target), _split(pattern)
    return fnmatchcase(base, base_pattern) and fnmatchcase(path, path_pattern or "*")


def _split(url: str) -> tuple[str, str]:
    """`scheme://host:port`, and the rest."""
    scheme, _, rest = url.partition("://")
    base, slash, path = rest.partition("/")
    return f"{scheme}://{base}", slash + path


def _webhook(url: str) -> str:
    if not url.partition(":")[2].startswith("//"):
        raise ValueError("'//' must follow the scheme")
    if not _URL.fullmatch(url):
        raise ValueError("a URL must be ASCII without spaces, braces and fragment; percent-encode other characters")
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ValueError("a URL must not have a user or password; receivers check signatures instead")
    if any(part in {".", ".."} for part in unquote(parts.path).split("/")):
        raise ValueError("the path must not contain '.' or '..' as a part")
    port = "" if parts.port in (None, _PORTS[parts.scheme]) else f":{parts.port}"
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{_host(parts.hostname or '')}{port}{parts.path or '/'}{query}"


def _host(host: str) -> str:
    if ":" in host:
        return f"[{IPv6Address(host)}]"
    if _NUMBER.fullmatch(host):
        return str(IPv4Address(host))
    if not _HOST.fullmatch(host):
        raise ValueError("the host must be a name of letters, digits and hyphens (write other letters in xn-- form)")
    return host


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise ValueError("a handler's name must have 1 to 60 lower-case letters, digits, '_' or '-', a letter first")
    return text


def _word(text: str, what: str) -> str:
    if not _WORD.fullmatch(text):
        raise ValueError(f"the {what} must have 1 to 200 letters, digits or any of '_.:@/-'")
    return text


def _maxlen(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and _MAXLEN.fullmatch(text)):
        raise ValueError("maxlen must be a whole number from 1 to 999999999999")
    return int(text)


def _file(text: str) -> str:
    if text.startswith("/"):
        raise ValueError("the path must be relative to OUTWAIT_HANDLERS__FOLDER")
    path = PurePosixPath(text)
    if path.suffix != ".jsonl":
        raise ValueError("the file's name must end in .jsonl")
    if not all(_FILE_PART.fullmatch(part) for part in path.parts):
        raise ValueError(
            "each part of the path must have 1 to 100 letters, digits or any of '_.-', and not begin with a dot"
        )
    if any(part.lower().endswith(".jsonl") for part in path.parts[:-1]):
        raise ValueError("a folder's name must not end in .jsonl: it would take the place of a file")
    return str(path)
