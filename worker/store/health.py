"""Says whether this Redis can be trusted with jobs: version, eviction, append-only file, clock."""

import time
from collections.abc import Mapping
from typing import Literal, NamedTuple

from redis.exceptions import NoPermissionError, RedisError, ResponseError

from outwait.config.groups import StoreSettings
from outwait.worker.model.errors import StoreUnavailable, StoreUnfit
from outwait.worker.model.store_outages import StoreOutage
from outwait.worker.store.connection import Connection
from outwait.worker.store.key_types import needed_types

OLDEST = (6, 2)
"""ZADD LT/GT and RPOP with a count came with Redis 6.2."""

WAITAOF_SINCE = (7, 2)
"""Valkey calls itself Redis 7.2 here."""

CLOCK_OFFSET = 2.0
"""Seconds between our clock and Redis's above which a person should know (leases use Redis's clock alone)."""

ABSENT = "none"
"""Redis's type of a key that does not exist."""

PROBE_EVERY = 1.0
"""Seconds for which the answer to whether Redis takes writes is kept."""


class Finding(NamedTuple):
    """What one check says, and what to do about it."""

    level: Literal["ok", "warning", "error"]
    subject: str
    message: str
    advice: str = ""


def is_unusable(findings: list[Finding]) -> bool:
    """Whether nothing else can be asked of this server, since its commands differ."""
    return any(finding.level == "error" and finding.subject in ("version", "mode") for finding in findings)


class Health:
    """The checks of one store's Redis, for one event loop."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._fit = False
        self._probed_at = -PROBE_EVERY
        self._refusal: StoreUnavailable | None = None

    async def findings(self) -> list[Finding]:
        """What was checked; of a server that cannot be used only why. Raises StoreUnavailable."""
        redis = self._connection.redis
        async with self._connection.translated():
            info = await redis.info()
            version, mode = version_finding(info), _mode(info)
            if is_unusable([version, mode]):
                return [version, mode]
            second, micro = await redis.time()
            fsync = await _config(self._connection, "appendfsync")
        settings = self._connection.settings.store
        return [
            version,
            mode,
            _eviction(info),
            _durability(info, fsync, strict=settings.strict),
            *_copies(info, settings),
            _clock(second + micro / 1e6),
        ]

    async def require_fit(self) -> list[Finding]:
        """Check, and refuse what would lose jobs. Raises StoreUnfit or StoreUnavailable; gives back the warnings."""
        findings = await self.findings()
        errors = [finding for finding in findings if finding.level == "error"]
        if errors:
            raise StoreUnfit("\n".join(f"{error.subject}: {error.message}. {error.advice}" for error in errors))
        return [finding for finding in findings if finding.level == "warning"]

    async def require_fit_once(self) -> None:
        """Check before the first write: an old Redis stops a script half-way. Raises StoreUnfit or StoreUnavailable.

        A user that may not ask (INFO is not permitted) is not held up.
        """
        if not self._fit:
            try:
                await self.require_fit()
            except StoreUnavailable as error:
                if error.outage is not StoreOutage.PERMISSION:
                    raise
            self._fit = True

    async def require_writable(self) -> None:
        """Raises StoreUnavailable while Redis takes no writes. It is asked once in `PROBE_EVERY` seconds."""
        now = time.monotonic()
        if now >= self._probed_at + PROBE_EVERY:
            self._probed_at = now
            try:
                await self._connection.probe()
            except StoreUnavailable as error:
                self._refusal = error
            else:
                self._refusal = None
        if self._refusal:
            raise StoreUnavailable(str(self._refusal), self._refusal.outage)

    async def key_types(self) -> list[Finding]:
        """An error for each key that has not the type that workers need. Raises StoreUnavailable."""
        needed = needed_types(self._connection.settings)
        async with self._connection.translated(), self._connection.redis.pipeline(transaction=False) as pipe:
            for key in needed:
                pipe.type(key)
            found = await pipe.execute(raise_on_error=False)
            for error in found:
                if isinstance(error, RedisError) and not isinstance(error, NoPermissionError):
                    raise error
        types = [kind.decode() if isinstance(kind, bytes) else ABSENT for kind in found]
        return [
            _misplaced(key, kind, wanted)
            for (key, wanted), kind in zip(needed.items(), types, strict=True)
            if kind not in {wanted, ABSENT}
        ]

    async def require_key_types(self) -> None:
        """Raises StoreUnfit if a key has not the type that workers need, and StoreUnavailable."""
        if misplaced := await self.key_types():
            raise StoreUnfit("\n".join(f"{finding.subject} {finding.message}" for finding in misplaced))

    async def writes(self) -> Finding:
        """Whether Redis takes writes now, and if not, why and what to do."""
        try:
            await self._connection.probe()
        except StoreUnavailable as error:
            return Finding("error", "writes", str(error), error.outage.advice)
        return Finding("ok", "writes", "are taken")


def _misplaced(key: str, kind: str, wanted: str) -> Finding:
    shown = repr(key)[1:-1]
    return Finding(
        "error",
        f"key {shown}",
        f"is a {kind}, but workers need a {wanted} there",
        f'Something else has written it. Move it away, in redis-cli: RENAME "{shown}" "{shown}.moved"',
    )


def version_finding(info: Mapping[str, object]) -> Finding:
    """Whether the server that answered INFO so knows the commands of our scripts."""
    name = "Valkey" if "valkey_version" in info else "Redis"
    text = str(info.get("redis_version", "0.0"))
    if _number(text) < OLDEST:
        return Finding("error", "version", f"Redis {text} is too old", "Use Redis 6.2 or newer, or Valkey.")
    return Finding("ok", "version", f"{name} {info.get('valkey_version', text)}")


def _mode(info: dict[str, object]) -> Finding:
    mode = info.get("redis_mode") or info.get("server_mode")  # as Redis and as Valkey call it
    if mode == "cluster":
        return Finding(
            "error",
            "mode",
            "this is a node of a Redis Cluster, where no key can be moved together with another one",
            "Use a Redis without cluster mode; replicas with Sentinel take over when it fails (docs/operations.md).",
        )
    if mode == "sentinel":
        return Finding(
            "error",
            "mode",
            "this is a Sentinel, which stores nothing",
            "Write sentinel://host:26379,host:26379/MASTER/0 in OUTWAIT_REDIS_URL.",
        )
    return Finding("ok", "mode", "one server" if not info.get("connected_slaves") else "one server with replicas")


def _copies(info: dict[str, object], settings: StoreSettings) -> list[Finding]:
    """Whether promises can be kept as the settings ask for."""
    if settings.files and _number(info.get("redis_version")) < WAITAOF_SINCE:
        advice = "Use Redis 7.2 or Valkey, or set OUTWAIT_STORE__FILES=0."
        return [Finding("error", "files", "this Redis does not know WAITAOF, which OUTWAIT_STORE__FILES needs", advice)]
    if settings.files and not int(str(info.get("aof_enabled", 0))):
        advice = "Set appendonly yes, or OUTWAIT_STORE__FILES=0."
        return [Finding("error", "files", "no append-only file, but OUTWAIT_STORE__FILES asks for one", advice)]
    replicas, needed = int(str(info.get("connected_slaves", 0))), max(settings.replicas, settings.files - 1)
    if replicas < needed:
        advice = "Bring the others back, or lower OUTWAIT_STORE__REPLICAS and OUTWAIT_STORE__FILES."
        message = f"{replicas} of {needed} are connected: nothing can be promised until the others are"
        return [Finding("warning", "replicas", message, advice)]
    if replicas > settings.replicas:
        advice = f"Set OUTWAIT_STORE__REPLICAS={replicas} if nothing may be lost (docs/operations.md)."
        message = f"{replicas} connected, {settings.replicas} waited for: a failover may lose what was accepted"
        return [Finding("warning", "replicas", message, advice)]
    return [Finding("ok", "replicas", f"{replicas} connected, all waited for")] if replicas else []


def _number(version: object) -> tuple[int, ...]:
    return tuple(int(part) for part in str(version or "0.0").split(".")[:2] if part.isdigit())


def _eviction(info: dict[str, object]) -> Finding:
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction" and int(str(info.get("maxmemory", 0))) > 0:
        return Finding(
            "error",
            "maxmemory-policy",
            f"Redis may evict keys ({policy}), and every key is a job",
            "Set maxmemory-policy noeviction, or give Outwait a Redis of its own.",
        )
    if policy != "noeviction":
        return Finding(
            "warning",
            "maxmemory-policy",
            f"{policy}, harmless only while maxmemory is 0",
            "Set maxmemory-policy noeviction.",
        )
    return Finding("ok", "maxmemory-policy", "noeviction")


def _durability(info: dict[str, object], fsync: str | None, *, strict: bool) -> Finding:
    if not int(str(info.get("aof_enabled", 0))):
        level: Literal["warning", "error"] = "error" if strict else "warning"
        return Finding(
            level,
            "appendonly",
            "no append-only file: a crash of Redis loses minutes of jobs",
            "Set appendonly yes (and appendfsync always where no second may be lost).",
        )
    if strict and fsync != "always":
        return Finding(
            "error",
            "appendfsync",
            f"{fsync or 'unknown'}, but OUTWAIT_STORE__STRICT asks for always",
            "Set appendfsync always, or unset OUTWAIT_STORE__STRICT.",
        )
    return Finding("ok", "appendonly", f"yes, appendfsync {fsync or 'unknown (CONFIG is not permitted)'}")


def _clock(theirs: float) -> Finding:
    offset = time.time() - theirs
    if abs(offset) > CLOCK_OFFSET:
        return Finding(
            "warning",
            "clock",
            f"this machine is {abs(offset):.1f} s {'ahead of' if offset > 0 else 'behind'} Redis's",
            "Nothing is lost (countdowns and leases use Redis's clock), but logs disagree: set up NTP.",
        )
    return Finding("ok", "clock", f"{abs(offset) * 1000:.0f} ms from Redis's")


async def _config(connection: Connection, name: str) -> str | None:
    try:
        values = await connection.redis.config_get(name)
    except (NoPermissionError, ResponseError):
        return None
    return str(values.get(name)) if values else None
