"""The fields of the store's hashes: a readable name for each code that stands in Redis.

Redis keeps the codes, which are short because every job has them. Python and Lua use the names: Python the enums below,
scripts `job_field.state` and the like, which are replaced when a script is loaded. Codes never change, so that workers
of two releases can share a store. Times are milliseconds since 1970 of Redis's clock.
"""

from enum import StrEnum


class JobField(StrEnum):
    """Fields of a job's hash, `j:JOB`. Values are under 65 bytes, so that the hash stays small."""

    PROVIDER = "p"
    OPERATION = "op"
    STATE = "st"  # model.jobs.JobState
    LANE = "ln"  # the lane where it stands; empty once it was fanned out
    FENCE = "f"  # number of the last claim, begin or outcome: what a stale worker writes is refused
    DIGEST = "dg"  # hash of the request, which tells the same request from another one
    IDEMPOTENCY_KEY = "ik"
    TENANT = "tn"
    TRACE = "tp"  # the producer's trace context (W3C traceparent)
    PRIORITY = "pr"  # 0 to 9; absent: the default
    DUE = "du"  # ms, when its last countdown ended, after which it stands in its tenant's line
    ATTEMPTS = "a"  # failed attempts of the present step
    CREATED = "c"  # ms
    SUBMITTED = "su"  # ms
    LAST_POLL = "lp"  # ms, of the last poll that found it unfinished
    DEADLINE = "dl"  # ms
    ENDED = "en"  # ms
    CLOSED = "cl"  # ms
    EXTERNAL_ID = "x"
    MEMO = "m"  # what the provider's code remembers between polls
    PROVIDER_STATUS = "ps"  # the provider's last word for its status
    CLAIMED = "fc"  # the fence of the last claim: while it is the job's, the claim is not begun
    INTENT = "i"  # there from the moment in which the request of a submit may have left
    CANCEL_REQUESTED = "cq"  # 1 if it is cancelled as soon as the answer of its submit is known
    OPEN_DELIVERIES = "od"  # count
    DELIVERIES = "dn"  # count of all that were made
    WEBHOOK_ENDED = "wh"  # ms, of the first webhook that said that the job ended
    WEBHOOK_EXTERNAL_ID = "wx"  # the external id that a webhook named before the submit's answer was known
    WEBHOOK_NONCE = "wn"  # name of the last webhook, so that the same call counts once
    NOT_BEFORE = "nb"  # ms, before which no webhook makes a poll come
    UNKNOWN_POLLS = "up"  # polls that said that the external id is unknown, since the last one that found the job
    UNKNOWN_SINCE = "us"  # ms, of the first of them
    REPOLLS = "rp"  # how often a person had it polled again after it had ended
    CONFLICTS = "nc"  # other requests that came under its id and were refused; the first has an entry in the timeline
    EXPIRES = "xe"  # ms, when the external id expires, as the provider said last
    EXPIRY_WARNED = "xw"  # 1 once there was a warning that the external id expires
    SUBMITS = "ns"  # ledger: requests sent
    POLLS = "np"  # ledger: requests sent
    FETCHES = "nf"  # ledger: requests sent
    WEBHOOKS = "nw"  # ledger: webhooks received
    DELIVERY_ATTEMPTS = "nd"  # ledger: handler runs
    COUNTED_BYTES = "cb"  # bytes that were counted for its tenant; absent if it has none, or is not counted yet
    WEBHOOK_BYTES = "wb"  # of its webhooks that are kept
    COUNTED_OPEN = "co"  # 1 if it was counted as an open job of its tenant, else 0


class DeliveryField(StrEnum):
    """Fields of a delivery's hash, `d:JOB#N`."""

    FENCE = "f"  # as a job's
    CLAIMED = "fc"  # as a job's
    STATE = "st"  # model.jobs.DeliveryState
    TARGET = "tg"
    ATTEMPTS = "a"  # failed attempts
    ERROR = "e"  # JSON of the last attempt's error


class GovernorField(StrEnum):
    """Fields of a provider's governor, `gov:PROVIDER`."""

    PAUSED_UNTIL = "pu"  # ms; the provider asked for silence
    PAUSE_REASON = "pr"
    SUSPENDED = "mp"  # ms, when a person stopped the provider; absent while nobody has
    SUSPEND_REASON = "mr"
    SUSPENDED_BY = "mb"  # when, as SUSPENDED, and who, in words; release 0.2.0 leaves it from another pause
    OUTAGES = "bf"  # outages in a row
    OPEN_UNTIL = "bo"  # ms; the breaker is open until then, and after it one probe goes
    TIMES_OPENED = "bt"  # in a row; each doubles the time
    OPEN_REASON = "br"
    PROBE_UNTIL = "bp"  # ms, until which the probe that was sent may run
    LAST_LANE = "tl"  # the lane that had the last turn
    TURNS_YIELDED = "ty"  # how often that lane left its turn to the other one since


class UseField(StrEnum):
    """Fields of what a tenant uses, `use:TENANT`."""

    OPEN_JOBS = "uo"  # count
    BYTES = "ub"  # of requests and results, and a share for each job
    MINUTE = "um"  # since 1970, of the next count
    ENQUEUED = "un"  # jobs that were created in that minute


TABLES = {
    "job_field": JobField,
    "delivery_field": DeliveryField,
    "governor_field": GovernorField,
    "use_field": UseField,
}
"""What the names of fields begin with in the scripts."""


def lua() -> dict[str, str]:
    """The names of all fields in the scripts, `job_field.state` and so on, and what stands for them in Lua."""
    return {f"{table}.{field.name.lower()}": f"'{field}'" for table, names in TABLES.items() for field in names}
