"""Enqueues a job with Outwait's own client and waits for its result, over Redis or over HTTP.

Run it beside `outwait up --sandbox`: `OUTWAIT_REDIS_URL=redis://… python examples/client.py "What do you charge?"`, or
`API_URL=http://127.0.0.1:8080 API_KEY=ow_… python examples/client.py` with a key that `outwait keys create` made.
"""

import os
import sys

from outwait import Client, JobEnded


def main() -> None:
    question = sys.argv[1] if len(sys.argv) > 1 else "What do you charge?"
    params = {"query": question, "sessionId": "session-1", "visitorId": "visitor-1"}
    with Client(os.environ.get("API_URL"), key=os.environ.get("API_KEY")) as client:
        job = client.enqueue("unless", "query", params)
        print("job:", job.job_id)
        try:
            print("result:", client.wait(job.job_id, timeout_s=120)["answer"])
        except JobEnded as error:
            sys.exit(f"no result: {error}")


if __name__ == "__main__":
    main()
