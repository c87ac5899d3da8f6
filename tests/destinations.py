"""What tests of handlers allow their targets to name."""

from outwait.worker.model.destinations import Destinations

ANYWHERE = Destinations(
    streams=["*"], queues=["*", "celery"], routed=frozenset(), namespace="outwait", intake_queue="outwait", shared=False
)
"""Every stream and queue that is not Celery's or our own."""
