"""What a chaos run does, worked out from its seed: the jobs with their faults, and the blows to workers and Redis."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import Any
from urllib.parse import quote

from outwait.worker.model.jobs import JobRequest, JobState

TARGETS = ("file:chaos.jsonl", "file:second.jsonl")

NEVER_TAKEN = ("drop", "error")
LOSSES = (*NEVER_TAKEN, "drop_after", "error_after", "html", "broken_json", "empty", "hang_after")
"""Faults of a submit after which nobody but the provider knows whether the job was taken. After the first two it was
not; the others spoil the answer, which may have been a 429."""

WEBHOOKS = {"on_time": 1, "early": 1, "late": 1, "twice": 2, "never": 0}
"""When the sandbox sends webhooks, and how many of itself; one that is not answered with 200 comes again."""

MENDED = ("error", "drop", "html", "broken_json", "empty", "content_type", "hang")
"""Faults of a poll: it is asked again."""


@dataclass(frozen=True)
class Size:
    """How much of it.

    `seconds`: how long the load and the blows last; the drain comes after. `penalty`: seconds of an ordered one.
    """

    seconds: float
    jobs: int
    workers: int
    kills: int
    stops: int  # SIGTERM, and a new worker
    freezes: int
    redis_kills: int
    redis_restarts: int
    web_kills: int
    penalty: float


SHORT = Size(
    seconds=13,
    jobs=200,
    workers=2,
    kills=5,
    stops=1,
    freezes=2,
    redis_kills=1,
    redis_restarts=0,
    web_kills=1,
    penalty=6,
)
LONG = Size(
    seconds=600,
    jobs=6000,
    workers=3,
    kills=215,
    stops=15,
    freezes=60,
    redis_kills=6,
    redis_restarts=2,
    web_kills=20,
    penalty=1,
)


@dataclass(frozen=True)
class PlannedJob:
    """One job: when it is enqueued and how, and how it must end unless it is held.

    `loss`: the fault that takes the answer of its submit, or nothing. `webhooks`: how many its provider sends.
    """

    at: float
    id: str
    request: JobRequest
    ends: JobState
    by_celery: bool
    loss: str
    webhooks: int


class Kind(Enum):
    """What is struck, and how."""

    KILL = "worker killed"
    STOP = "worker stopped by SIGTERM"
    FREEZE = "worker frozen"
    REDIS_KILL = "Redis killed"
    REDIS_RESTART = "Redis restarted"
    WEB_KILL = "web process killed"


@dataclass(frozen=True)
class Blow:
    """One event. `length`: how long a freeze or an outage lasts.

    `skew`: how wrong the next worker's clock is. `previous`: whether that one is of the previous release.
    """

    at: float
    kind: Kind
    worker: int
    length: float
    skew: float
    previous: bool


@dataclass(frozen=True)
class Plan:
    """All of a run."""

    jobs: list[PlannedJob]
    blows: list[Blow]
    penalty: float


def plan(seed: int, size: Size) -> Plan:
    """The same seed and size give the same plan."""
    rng = Random(seed)
    jobs = [_job(rng, number, size) for number in range(size.jobs)]
    return Plan(sorted(jobs, key=lambda job: job.at), sorted(_blows(rng, size), key=lambda blow: blow.at), size.penalty)


def _blows(rng: Random, size: Size) -> Iterator[Blow]:
    numbers = {
        Kind.KILL: size.kills,
        Kind.STOP: size.stops,
        Kind.FREEZE: size.freezes,
        Kind.REDIS_KILL: size.redis_kills,
        Kind.REDIS_RESTART: size.redis_restarts,
        Kind.WEB_KILL: size.web_kills,
    }
    for kind, number in numbers.items():
        longest = 16.0 if kind is Kind.FREEZE else 2.0
        for _ in range(number):
            at = rng.uniform(0.2 * size.seconds if size.seconds < 60 else 5, size.seconds)
            skew = rng.choice((0, 0, 0, 3600, -3600, 40, -5))
            worker, length, previous = rng.randrange(size.workers), rng.uniform(0.2, longest), rng.random() < 0.3
            yield Blow(at, kind, worker, length, skew, previous)


def _job(rng: Random, number: int, size: Size) -> PlannedJob:
    job_id = f"c{number:06d}"
    order, ends = _order(rng, size.penalty)
    made = rng.choice((_question, _question, _audio, _speech, _speech))
    if made is _speech:
        order["webhook"] = rng.choice([*WEBHOOKS])
        order["webhook_delay"] = round(rng.uniform(0, 5), 1)
        order["webhook_shape"] = rng.choice(("envelope", "envelope", "bare"))
        # An empty answer loses nothing here: it says that a webhook follows.
        order["faults"] = [one for one in order["faults"] if (one["fault"], one["on"]) != ("empty", "submit")]
    provider, operation, params = made(job_id, order)
    targets = TARGETS[: rng.choice((1, 1, 1, 2))]
    request = JobRequest(provider=provider, operation=operation, params=params, targets=list(targets))
    loss = next(
        (fault["fault"] for fault in order["faults"] if fault["on"] == "submit" and fault["fault"] in LOSSES), ""
    )
    webhooks = WEBHOOKS[order.get("webhook", "never")]
    return PlannedJob(rng.uniform(0, size.seconds * 0.93), job_id, request, ends, rng.random() < 0.4, loss, webhooks)


def _order(rng: Random, penalty: float) -> tuple[dict[str, Any], JobState]:
    """What the sandbox is told to do with one job, and how the job must end."""
    order: dict[str, Any] = {"duration": round(rng.uniform(0.5, 7), 1)}
    faults, ends = [], JobState.SUCCEEDED
    if rng.random() < 0.2:
        order["latency"] = round(rng.uniform(0.02, 0.3), 2)
    if rng.random() < 0.06:
        order["outcome"], ends = "failure", JobState.FAILED
    if rng.random() < 0.01:
        faults.append({"fault": "rate_limit", "on": "submit", "seconds": penalty})
    if rng.random() < 0.06:
        faults.append(_fault(rng.choice(LOSSES), "submit"))
    if rng.random() < 0.25:
        faults += [_fault(rng.choice(MENDED), "poll") for _ in range(rng.choice((1, 1, 2)))]
    if rng.random() < 0.01:
        faults.append({"fault": "rate_limit", "on": "poll", "seconds": penalty})
    return order | {"faults": faults}, ends


def _fault(kind: str, on: str) -> dict[str, Any]:
    # 500 and not the sandbox's 503, by which RingCentral says for certain that the job was not taken.
    more: dict[str, Any] = {"status": 500} if kind.startswith("error") else {}
    if kind.startswith("hang"):
        more = {"seconds": 4}
    return {"fault": kind, "on": on, **more}


Made = tuple[str, str, dict[str, Any]]


def _question(job_id: str, order: dict[str, Any]) -> Made:
    text = f"{job_id} sandbox:{json.dumps(order)}"
    return "unless", "query", {"query": text, "sessionId": "chaos", "visitorId": "chaos"}


def _audio(job_id: str, order: dict[str, Any]) -> Made:
    params = {"languageTag": "en-us", "vertical": "default", "downloadUri": _media(job_id, order)}
    return "elevateai", "audio", params


def _speech(job_id: str, order: dict[str, Any]) -> Made:
    params = {"contentUri": _media(job_id, order), "encoding": "Mpeg", "languageCode": "en-US"}
    return "ringcentral", "speech-to-text", params


def _media(job_id: str, order: dict[str, Any]) -> str:
    return f"https://media.example.com/{job_id}.mp3?sandbox={quote(json.dumps(order))}"
