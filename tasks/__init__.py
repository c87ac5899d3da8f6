"""The flow of a job, one file a step, in the order in which a job lives: submit, poll, callback, deliver, handlers.

Celery imports these files by name. Nothing in `worker` may import them.
"""
