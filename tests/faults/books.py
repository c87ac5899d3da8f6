"""The books of a chaos run: what the sandbox saw against what Outwait says, job by job."""

import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from outwait.client.store import StoreClient
from outwait.worker.model.jobs import Job, JobState
from tests.faults import provider_webhooks
from tests.faults.plan import NEVER_TAKEN, TARGETS, Blow, Kind, Plan
from tests.stack import Stack

KNOWN = 0.5
"""Share of a penalty after which one worker's 429 is known to all: what arrives sooner had left before."""

TICKS = 5
"""Seconds from the end of a lease until somebody sees it, on a machine that is busy."""

STRUCK = {Kind.KILL, Kind.FREEZE, Kind.REDIS_KILL, Kind.REDIS_RESTART}
"""Blows after which nobody passes on what a worker was told; a stopped worker does."""


@dataclass
class Struck:
    """What was really done, and when (seconds since 1970)."""

    blows: list[tuple[Blow, float, float]] = field(default_factory=list)  # from, to
    accepted: dict[str, float] = field(default_factory=dict)
    messages: dict[str, int] = field(default_factory=lambda: {"dropped": 0, "doubled": 0, "late": 0})
    old: int = 0  # workers of the previous release
    cuts: list[tuple[float, float, int]] = field(default_factory=list)  # from, to, bytes of the append-only file

    def between(self, start: float, end: float) -> bool:
        """Whether a worker was lost, or Redis, in this time."""
        return any(blow.kind in STRUCK and began <= end and ended >= start for blow, began, ended in self.blows)

    def with_a_cut(self, at: float) -> bool:
        """Whether what was written then went with a cut of the append-only file."""
        return any(start <= at <= end for start, end, _ in self.cuts)


@dataclass
class Books:
    """The figures, and what does not balance."""

    figures: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def check(self, name: str, wrong: list[str], *, excused: str = "") -> None:
        """Nothing of this kind may be there, unless there is an excuse; then its number is shown."""
        self.figures[f"{name} ({excused})" if excused else name] = len(wrong)
        if wrong and not excused:
            self.wrong.append(f"{name}: {', '.join(wrong[:8])}")

    def text(self) -> str:
        """For people."""
        lines = [f"{number:>9,}  {name}" for name, number in self.figures.items()]
        verdict = ["the books balance"] if not self.wrong else [f"WRONG: {line}" for line in self.wrong]
        return "\n".join((*lines, *verdict)) + "\n"


class Balance:
    """Both sides, read when nothing moves any more."""

    def __init__(self, stack: Stack, plan: Plan, struck: Struck, jobs: dict[str, Job]) -> None:
        ledger = stack.ledger()
        self.struck, self.jobs = struck, jobs
        self.known = plan.penalty * KNOWN
        self.plan = {job.id: job for job in plan.jobs}
        self.totals: list[dict[str, Any]] = list(ledger["totals"].values())
        self.seen: dict[str, list[dict[str, Any]]] = {}
        for job in ledger["jobs"]:
            self.seen.setdefault(provider_webhooks.job_of(job), []).append(job)
        self.lines = dict(_lines(stack))
        self.held = {key: job for key, job in jobs.items() if job.state is JobState.UNCERTAIN}
        self.ended = {key: job for key, job in jobs.items() if job.state.ended}
        self.cut = "an earlier write was lost with the file's last second" if struck.cuts else ""
        self.books = Books()

    def blows(self) -> None:
        """What was done to it."""
        figures = self.books.figures
        for kind, number in Counter(blow.kind for blow, _, _ in self.struck.blows).items():
            figures[kind.value] = number
        figures["workers with wrong clocks"] = sum(
            blow.kind in (Kind.KILL, Kind.STOP) and blow.skew != 0 for blow, _, _ in self.struck.blows
        )
        figures["workers of the previous release"] = self.struck.old
        for what, number in self.struck.messages.items():
            figures[f"Celery messages {what}"] = number
        figures["faults that the sandbox answered with"] = self._total("faults")
        if self.struck.cuts:
            figures["bytes cut off the append-only file"] = sum(size for _, _, size in self.struck.cuts)

    def accepted(self) -> None:
        """Jobs accepted = ended + held."""
        figures = self.books.figures
        figures["jobs accepted"] = len(self.struck.accepted)
        for state, number in Counter(job.state for job in self.ended.values()).items():
            figures[f"jobs {state}"] = number
        figures["jobs held"] = len(self.held)
        gone = [key for key in self.struck.accepted if key not in self.jobs]
        with_cut = [key for key in gone if self.struck.with_a_cut(self.struck.accepted[key])]
        if self.struck.cuts:
            figures["jobs lost with the file's last second"] = len(with_cut)
            figures["of those, accepted by the sandbox"] = sum(key in self.seen for key in with_cut)
        self.books.check("jobs lost", [key for key in gone if key not in with_cut])
        self.books.check("jobs neither ended nor held", sorted(self.jobs.keys() - self.ended.keys() - self.held.keys()))
        self.books.check(
            "ends that are not as planned",
            [key for key in self.ended if not self._as_planned(key) and not self._after_a_cut(key)],
        )

    def submits(self) -> None:
        """At most one submit a job was accepted; what the provider has and Outwait does not know is held."""
        figures = self.books.figures
        figures["submits sent"] = sum(total["requests"]["submit"] for total in self.totals)
        figures["submits that the sandbox accepted"] = self._total("jobs")
        twice = [key for key, seen in self.seen.items() if len(seen) > 1]
        with_cut = [key for key in twice if self._went(key)]
        if self.struck.cuts:
            figures["submits repeated because the intent was lost with the file's last second"] = len(with_cut)
        self.books.check("submits repeated", [key for key in twice if key not in with_cut])
        assert self._total("repeated_submits") == sum(len(seen) - 1 for seen in self.seen.values())
        unknown = [key for key, seen in self.seen.items() if key in self.ended and not self._bound(key, seen)]
        self.books.check("submits paid for and not followed", [key for key in unknown if not self._went(key)])

    async def doubts(self, client: StoreClient, lease: float) -> None:
        """Held = really in doubt: by a fault that took the answer, or by a worker lost after the intent."""
        doubted = {key for key in self.jobs if self._answer_taken(key)}
        by_fault = {key for key in self.held if self.plan[key].loss}
        rest = self.held.keys() - by_fault
        paid = {key for key in rest if key in self.seen}
        lost = {key for key in rest - paid if await self._worker_lost(client, key, lease)}
        figures = self.books.figures
        figures["held: a fault took the answer"] = len(by_fault)
        figures["held: the provider has the job, and the worker was killed or frozen"] = len(paid)
        figures["held: the intent was written, and the worker was killed or frozen"] = len(lost)
        self.books.check("held although nothing was uncertain", sorted(rest - paid - lost))
        adopted = {key for key in self.ended if await self._adopted(client, key)}
        figures["adopted: a webhook named the id that was in the lost answer"] = len(adopted)
        free = sorted(key for key in doubted - self.held.keys() - adopted if not self._after_a_cut(key))
        self.books.check("uncertain, and neither held nor adopted", free)
        named = [key for key in self.held if self._named(key)]
        by_old = [key for key in named if self.struck.old and await self._held_later(client, key)]
        figures["held by a worker of the previous release, which ignores webhooks"] = len(by_old)
        self.books.check("held although a webhook named its id", sorted(set(named) - set(by_old)))

    def webhooks(self) -> None:
        """Each that was answered with 200 is in its job's ledger."""
        figures = self.books.figures
        figures["webhooks sent"] = self._total("webhooks_sent")
        figures["webhooks answered with 200"] = self._total("webhooks_acknowledged")
        figures["webhooks in the jobs' ledgers"] = sum(job.ledger.webhooks for job in self.jobs.values())
        lost, made_up = provider_webhooks.differences(self.jobs, self.seen)
        self.books.check("webhooks lost", lost, excused=self.cut)
        self.books.check("webhooks in a ledger that nobody sent", made_up)

    async def polls(self, client: StoreClient) -> None:
        """Never closer together than the interval; each one is in the ledger unless its worker was struck."""
        figures = self.books.figures
        counts = {key: sum(job["polls"]["count"] for job in seen) for key, seen in self.seen.items()}
        figures["polls that arrived"] = sum(counts.values())
        figures["polls in the jobs' ledgers"] = sum(job.ledger.polls for job in self.jobs.values())
        differ = [key for key, count in counts.items() if key in self.jobs and count != self.jobs[key].ledger.polls]
        events = {key: {entry.event for entry in await client.timeline(key)} for key in differ}
        self.books.check(
            "polls missing in the ledger without a lost lease",
            [key for key in differ if "lease-ended" not in events[key]],
            excused=self.cut,
        )
        fast = [key for key, seen in self.seen.items() if any(job["polls"]["too_fast"] for job in seen)]
        self.books.check("polls under the minimum", fast, excused=self.cut)

    def penalties(self) -> None:
        """Nothing is sent into a penalty that somebody could have told of."""
        figures = self.books.figures
        figures["429s answered"] = self._total("rate_limited")
        figures["penalties ordered"] = figures["429s answered"] - self._total("in_penalty")
        late = [(at, after) for total in self.totals for at, after in total["trespasses"] if after > self.known]
        with_worker = [(at, after) for at, after in late if self.struck.between(at - after - self.known, at)]
        figures["requests on their way when a penalty began"] = self._total("in_penalty") - len(late)
        figures["requests in a penalty whose 429 went to a worker that was killed or frozen"] = len(with_worker)
        ordered = sum(json.dumps(job.request.params).count("rate_limit") for job in self.plan.values())
        self.books.figures["429s for a rate that was exceeded"] = max(0, figures["penalties ordered"] - ordered)
        rest = [
            f"{after:.2f} s after its 429" for at, after in sorted(late, key=_longest) if (at, after) not in with_worker
        ]
        self.books.check("requests in a penalty", rest)

    def deliveries(self) -> None:
        """Each ended job's result is at each of its handlers at least once."""
        figures = self.books.figures
        due = [(target, key) for key, job in self.ended.items() for target in job.targets]
        lines = Counter((target, line["job_id"]) for target, texts in self.lines.items() for line in texts)
        figures["deliveries due"] = len(due)
        figures["deliveries made"] = sum(lines.values())
        figures["deliveries made more than once"] = sum(number > 1 for number in lines.values())
        self.books.check("deliveries lost", [f"{key} at {target}" for target, key in due if not lines[target, key]])
        self.books.check("jobs ended and not closed", [key for key, job in self.ended.items() if job.closed is None])
        wrong = [line["job_id"] for texts in self.lines.values() for line in texts if not _own_result(line)]
        self.books.check("results of another job, or none", wrong)

    async def _adopted(self, client: StoreClient, key: str) -> bool:
        if not self.jobs[key].ledger.webhooks:
            return False
        return any(entry.event == "adopted" for entry in await client.timeline(key))

    async def _held_later(self, client: StoreClient, key: str) -> bool:
        """Whether it was held after its webhook; whoever takes in a webhook for a held job adopts it."""
        events = [entry.event for entry in await client.timeline(key)]
        return "webhook" in events[: events.index("held")]

    def _named(self, key: str) -> bool:
        """Whether a webhook with the job's id in it was taken in; one that was lost is told as such."""
        if quote('"bare"') in json.dumps(self.plan[key].request.params):
            return False
        return self.jobs[key].ledger.webhooks > 0

    def _total(self, name: str) -> int:
        return sum(total[name] for total in self.totals)

    def _as_planned(self, key: str) -> bool:
        return self.jobs[key].state is self.plan[key].ends

    def _answer_taken(self, key: str) -> bool:
        """Whether a fault certainly took the answer of a submit. What spoils answers may have met a mere 429."""
        return self.plan[key].loss in NEVER_TAKEN or any(job["answer_fault"] for job in self.seen.get(key, []))

    def _bound(self, key: str, seen: list[dict[str, Any]]) -> bool:
        return self.jobs[key].external_id in [job["id"] for job in seen]

    def _went(self, key: str) -> bool:
        """Whether the first submit of a job was written into a part of the file that was cut off."""
        return any(self.struck.with_a_cut(job["submitted"]) for job in self.seen.get(key, []))

    def _after_a_cut(self, key: str) -> bool:
        """Whether a job was submitted when a cut may have taken what was known of an earlier try."""
        times = [job["submitted"] for job in self.seen.get(key, [])]
        return any(start <= at <= end + 15 for at in times for start, end, _ in self.struck.cuts)

    async def _worker_lost(self, client: StoreClient, key: str, lease: float) -> bool:
        """Whether a worker was struck where it must have been, going by when the lease ended.

        The intent was written at most a lease before, and a living worker would have renewed it every third of one.
        """
        at = [entry.at for entry in await client.timeline(key) if entry.event == "uncertain"][-1]
        outages = sum(
            ended - began
            for blow, began, ended in self.struck.blows
            if blow.kind in (Kind.REDIS_KILL, Kind.REDIS_RESTART) and at - 3 * lease < ended < at
        )
        return self.struck.between(at - lease - TICKS - outages, at)


def _longest(trespass: tuple[float, float]) -> float:
    return -trespass[1]


def _lines(stack: Stack) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The lines of each handler's file."""
    for target in TARGETS:
        file = stack.folder / "results" / target.removeprefix("file:")
        text = file.read_text().splitlines() if file.exists() else []
        yield target, [json.loads(line) for line in text]


def _own_result(line: dict[str, Any]) -> bool:
    """The sandbox repeats a job's text, in which its id stands."""
    return line["state"] != JobState.SUCCEEDED or line["job_id"] in json.dumps(line["result"])


async def _jobs(client: StoreClient) -> AsyncIterator[Job]:
    cursor = None
    while True:
        page = await client.jobs(limit=500, cursor=cursor)
        for job in page.jobs:
            yield job
        cursor = page.cursor
        if cursor is None:
            return


async def balance(stack: Stack, client: StoreClient, plan: Plan, struck: Struck) -> Books:
    """Read both sides and compare them."""
    both = Balance(stack, plan, struck, {job.id: job async for job in _jobs(client)})
    both.blows()
    both.accepted()
    both.submits()
    await both.doubts(client, stack.settings.submit.lease)
    both.webhooks()
    await both.polls(client)
    both.penalties()
    both.deliveries()
    return both.books
