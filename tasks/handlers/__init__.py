"""Where results go: runs one delivery for one handler.

A handler is a function of the user's marked `@handler`, a signed webhook, a task of another Celery app, a Redis stream
or a JSON Lines file. Nothing here knows lanes, retries or the store: `tasks.deliver` decides what a failure means.
"""
