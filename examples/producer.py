"""Enqueues a job from another service and waits for its result: plain Celery, nothing of Outwait's own code.

Run it beside `outwait up --sandbox`: `OUTWAIT_REDIS_URL=redis://… python examples/producer.py "What do you charge?"`
"""

import os
import sys

from celery import Celery

REDIS = os.environ.get("OUTWAIT_REDIS_URL", "redis://127.0.0.1:6379/0")
QUEUE = os.environ.get("OUTWAIT_INTAKE__QUEUE", "outwait")

app = Celery("shop", broker=REDIS, backend=REDIS)


def main() -> None:
    question = sys.argv[1] if len(sys.argv) > 1 else "What do you charge?"
    request = {
        "provider": "unless",
        "operation": "query",
        "params": {"query": question, "sessionId": "session-1", "visitorId": "visitor-1"},
    }
    job = app.send_task("tasks.submit", kwargs=request, queue=QUEUE)
    print("job:", job.id)
    print("result:", job.get(timeout=120)["answer"])


if __name__ == "__main__":
    main()
