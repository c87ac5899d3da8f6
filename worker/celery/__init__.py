"""Integration with Celery's own tools: Flower's events, producers' results, the Redis transport."""
