"""What one viewer sees of the store: everything, or the jobs of one tenant."""

from collections.abc import Iterable
from typing import NamedTuple

from worker.errors import Forbidden, JobNotFound
from worker.jobs import Job, JobState
from worker.store.dead import DeadDelivery
from worker.store.listing import Page
from worker.store.reads import Reads
from worker.web.pages.session import Viewer
from worker.web.services import Services

JOBS = 50
"""Jobs on one page."""

DEAD = 100
"""Dead deliveries on the page, at most."""

LOOKED_AT = 1000
"""Jobs or dead deliveries of others that are passed over in one request to find those of a viewer's tenant."""


class Dead(NamedTuple):
    """A dead delivery and its job."""

    delivery: DeadDelivery
    job: Job

    @property
    def number(self) -> str:
        """Which one of its job's deliveries it is."""
        return self.delivery.id.rpartition("#")[2]


class Filter(NamedTuple):
    """Which jobs are listed. Times are seconds since 1970."""

    state: JobState | None = None
    provider: str | None = None
    since: float | None = None
    until: float | None = None


class Sight:
    """The store as one viewer sees it."""

    def __init__(self, shared: Services, viewer: Viewer) -> None:
        self._client = shared.client
        self._reads = Reads(shared.connection)
        self._viewer = viewer

    @property
    def whole(self) -> bool:
        """Whether they see what all tenants share: counts, charts, providers."""
        return self._viewer.key.tenant is None

    def need_whole(self) -> None:
        """Raises Forbidden."""
        if not self.whole:
            raise Forbidden(f"the API key {self._viewer.key.name!r} is for the jobs of one tenant only")

    async def job(self, job_id: str) -> Job:
        """Raises JobNotFound, the same for a job that is not there and for one that is another tenant's."""
        try:
            found = await self._client.job(job_id)
        except JobNotFound:
            found = None
        if found is None or not self._viewer.sees(found):
            raise JobNotFound(f"no job has the id {job_id!r}, or it was purged after its retention")
        return found

    async def find(self, text: str) -> Job | None:
        """The job with this id, or else the one with this idempotency key."""
        for job_id in (text, await self._reads.of_key(text)):
            if job_id is None:
                continue
            try:
                return await self.job(job_id)
            except JobNotFound:
                continue
        return None

    async def jobs(self, wanted: Filter, cursor: str | None) -> Page:
        """A page of jobs, the newest first. Raises InvalidRequest if the cursor is none."""
        seen: list[Job] = []
        for _ in range(LOOKED_AT // JOBS):
            page = await self._client.jobs(**wanted._asdict(), limit=JOBS, cursor=cursor)
            seen += [job for job in page.jobs if self._viewer.sees(job)]
            cursor = page.cursor
            if cursor is None or self.whole or len(seen) >= JOBS // 2:
                break
        return Page(seen, cursor)

    async def dead(self, target: str | None, provider: str | None, since: float | None) -> list[Dead]:
        """Dead deliveries, the newest first. Raises InvalidRequest if `target` or `provider` is none."""
        most = DEAD if self.whole else LOOKED_AT
        found = await self._client.dead(most, target=target, provider=provider, since=since)
        jobs = await self._jobs(one.job_id for one in found)
        known = [Dead(one, jobs[one.job_id]) for one in found if one.job_id in jobs]
        return [one for one in known if self._viewer.sees(one.job)][:DEAD]

    async def _jobs(self, job_ids: Iterable[str]) -> dict[str, Job]:
        return {job.id: job for job in await self._reads.many(list(dict.fromkeys(job_ids)))}
