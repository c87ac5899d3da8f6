"""Says why a job of a tenant is over a quota, and what to do about it. Pure."""

from outwait.worker.model.errors import QuotaExceeded, StorageExceeded

RETRY_AFTER = 10.0
"""Seconds after which another open job may have ended."""


def quota_error(tenant: str, excess: str) -> QuotaExceeded:
    """The error for an answer of the enqueue script (`enqueue.lua` lists them)."""
    match excess.split():
        case ["open", limit]:
            return QuotaExceeded(
                f"tenant {tenant!r} has {limit} open jobs, as many as OUTWAIT_TENANTS__OPEN_JOBS allows: enqueue the "
                "job again when others have ended",
                retry_after=RETRY_AFTER,
            )
        case ["rate", limit, seconds]:
            return QuotaExceeded(
                f"tenant {tenant!r} has enqueued {limit} jobs in this minute, as many as "
                f"OUTWAIT_TENANTS__JOBS_PER_MINUTE allows: enqueue the job again in {seconds} s",
                retry_after=float(seconds),
            )
        case _:
            limit = excess.rpartition(" ")[2]
            return StorageExceeded(
                f"with this job the requests and results of tenant {tenant!r} would take more than {limit} bytes: wait "
                "until closed jobs are purged (OUTWAIT_STORE__RETENTION), send large input as a URL, or ask the "
                "operator to raise OUTWAIT_TENANTS__MEMORY_SHARE or OUTWAIT_TENANTS__BYTES"
            )
