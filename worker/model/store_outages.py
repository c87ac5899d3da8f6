"""Why the store cannot be used for a while, and what an operator does about it. Nothing is lost meanwhile."""

from enum import StrEnum


class StoreOutage(StrEnum):
    """What keeps Redis from answering or from writing. Members compare as stable, short names."""

    UNREACHABLE = "unreachable"
    TLS = "tls"
    LOADING = "loading"
    LOGIN = "login"
    PERMISSION = "permission"
    BUSY = "busy"
    MASTER_DOWN = "master_down"
    CLUSTER = "cluster"
    READ_ONLY = "read_only"
    OUT_OF_MEMORY = "out_of_memory"
    NO_REPLICAS = "no_replicas"
    DISK = "disk"
    TOO_FEW_COPIES = "too_few_copies"
    OTHER = "other"

    @property
    def summary(self) -> str:
        """What is the matter, without hosts and names: for everybody."""
        return _TEXTS[self][0]

    @property
    def advice(self) -> str:
        """What the operator does about it."""
        return _TEXTS[self][1]

    @property
    def still_answers(self) -> bool:
        """Whether Redis still answers some commands: then only a write shows that the outage is over."""
        return self not in (StoreOutage.UNREACHABLE, StoreOutage.TLS, StoreOutage.LOGIN)


_TLS_ADVICE = (
    "CERTIFICATE_VERIFY_FAILED: name the authority (ssl_ca_certs), and a host that is in the certificate. "
    "CERTIFICATE_REQUIRED: give ours (ssl_certfile, ssl_keyfile). "
    "WRONG_VERSION_NUMBER: this port has no TLS (docs/operations.md)."
)

_TEXTS: dict[StoreOutage, tuple[str, str]] = {
    StoreOutage.UNREACHABLE: (
        "does not answer",
        "Set OUTWAIT_REDIS_URL to a running Redis, or start everything with `outwait up`.",
    ),
    StoreOutage.TLS: (
        "does not agree on TLS",
        _TLS_ADVICE,
    ),
    StoreOutage.LOADING: (
        "is loading its data",
        "Wait until it has started. A large append-only file takes minutes; `INFO persistence` shows how far it is.",
    ),
    StoreOutage.LOGIN: (
        "refuses the user name or the password",
        "Correct both in OUTWAIT_REDIS_URL (percent-encoded), or the user with `ACL SETUSER` on Redis.",
    ),
    StoreOutage.PERMISSION: (
        "does not permit a command or a key to this user",
        "Give the user the rules of docs/operations.md; `ACL LOG` on Redis shows what was refused.",
    ),
    StoreOutage.BUSY: (
        "is busy with a script that does not end",
        "Find whose script it is (`CLIENT LIST`), and end it with `SCRIPT KILL` or `FUNCTION KILL`.",
    ),
    StoreOutage.MASTER_DOWN: (
        "is a replica that has lost its master",
        "Bring the master back, or point OUTWAIT_REDIS_URL to the server that is the master now.",
    ),
    StoreOutage.CLUSTER: (
        "is a cluster that cannot serve this key now",
        "Check `CLUSTER INFO`. Outwait needs a server without cluster mode.",
    ),
    StoreOutage.READ_ONLY: (
        "is a read-only replica",
        "Point OUTWAIT_REDIS_URL to the master, or make this server one (`REPLICAOF NO ONE`).",
    ),
    StoreOutage.OUT_OF_MEMORY: (
        "is out of memory",
        "Raise maxmemory, or free memory: a shorter OUTWAIT_STORE__RETENTION, fewer other keys in this Redis.",
    ),
    StoreOutage.NO_REPLICAS: (
        "has fewer replicas than it must have to write",
        "Bring the replicas back (`INFO replication`), or lower min-replicas-to-write.",
    ),
    StoreOutage.DISK: (
        "cannot write to its disk",
        "Free space on the disk of Redis and check its folder; its log and `INFO persistence` name the error.",
    ),
    StoreOutage.TOO_FEW_COPIES: (
        "cannot copy what it writes to as many servers and disks as it must",
        "Bring the replicas back (`INFO replication`), or lower OUTWAIT_STORE__REPLICAS and OUTWAIT_STORE__FILES.",
    ),
    StoreOutage.OTHER: (
        "refuses a command",
        "The error is that of Redis, or of a proxy in front of it; the log of Redis may say more.",
    ),
}
