"""Webhooks in a chaos run: whether the sandbox has sent them all, and whether each is in its job's ledger."""

import re
from typing import Any

from outwait.worker.model.jobs import Job
from tests.faults.plan import Plan

TRIES = 6
"""How often the sandbox sends one that is not answered with 200."""


def job_of(seen: dict[str, Any]) -> str:
    """The job's id, which stands in the text that the sandbox keeps of it."""
    key = re.search(r"c\d{6}", seen["text"])
    return key[0] if key else str(seen["text"])


def all_sent(ledger: dict[str, Any], plan: Plan) -> bool:
    """Whether the sandbox owes no more webhooks."""
    due = {job.id: job.webhooks for job in plan.jobs}
    return all(_sent(seen, due.get(job_of(seen), 0)) for seen in ledger["jobs"])


def _sent(seen: dict[str, Any], due: int) -> bool:
    answers = answers_of([seen])
    return not seen["webhook"] or answers.count(200) >= due or len(answers) >= TRIES * due


def answers_of(seen: list[dict[str, Any]]) -> list[Any]:
    """What the sandbox's webhooks of a job were answered with."""
    return [webhook["answer"] for job in seen for webhook in job["webhooks"]]


def differences(jobs: dict[str, Job], seen: dict[str, list[dict[str, Any]]]) -> tuple[list[str], list[str]]:
    """Jobs with a webhook that was answered with 200 and is not in the ledger; and with one there that nobody sent.

    One whose answer was lost is in the ledger, and comes again.
    """
    counts = {key: jobs[key].ledger.webhooks for key in seen if key in jobs}
    answers = {key: answers_of(seen[key]) for key in counts}
    lost = [key for key, count in counts.items() if count < answers[key].count(200)]
    made_up = [key for key, count in counts.items() if count > len(answers[key])]
    return lost, made_up
