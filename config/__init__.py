"""Settings, and what is made from them: the Celery configuration and logging.

Nothing here knows a job, a provider or Redis. Everything else may import it; it imports nothing of ours.
"""
