"""What one would write without Outwait: a Celery task a poll, which sends itself again with a countdown.

The Celery documentation's own parts, with what a careful user sets: no result is stored, each thread keeps one
httpx.Client, the countdown has jitter. Run by poll_cost.py as `celery -A plain worker --pool=threads`.
"""

import os
import random
import threading

import httpx
from celery import Celery

app = Celery("plain", broker=os.environ.get("PLAIN_BROKER"))
app.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True)

HEADERS = {
    "accept": "application/json",
    "content-type": "application/json",
    "x-api-key": "k",
    "x-user-email": "bench@a.example",
    "x-account-id": "a",
    "x-website-id": "w",
}
JITTER = 1.1

_thread = threading.local()


def client() -> httpx.Client:
    """The client of the thread that asks."""
    if not hasattr(_thread, "client"):
        _thread.client = httpx.Client(base_url=os.environ["PLAIN_API"], headers=HEADERS, timeout=20)
    client: httpx.Client = _thread.client
    return client


@app.task(name="plain.poll", ignore_result=True)  # type: ignore[untyped-decorator] # Celery has no types
def poll(question: str) -> None:
    """Ask once; ask again later if the answer is not there yet."""
    response = client().get("/ai/async/answer", params={"questionId": question})
    response.raise_for_status()
    if response.json()["status"] == "PENDING":
        poll.apply_async((question,), countdown=float(os.environ["PLAIN_EVERY"]) * random.uniform(1.0, JITTER))
