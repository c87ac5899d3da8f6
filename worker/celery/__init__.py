"""What Celery's own tools see of a job: Flower's events, producers' results, the transport."""
