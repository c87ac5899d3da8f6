"""A service with nothing but Celery: it sends one submission task and prints the result."""

PRODUCER = """
import json, sys
from celery import Celery
url, queue, request = sys.argv[1:]
app = Celery("shop", broker=url, backend=url)
print(app.send_task("tasks.submit", kwargs=json.loads(request), queue=queue).get(timeout=150))
"""
