"""Celery's consumer, without its delayed delivery.

Beside a quorum queue it would make 28 queues (`celery_delayed_…`) in a RabbitMQ that is not ours, and warn
that countdowns block the worker. Here every countdown is kept in the store.
"""

from celery.worker import consumer


class Consumer(consumer.Consumer):  # type: ignore[misc] # Celery has no types
    """Named in `worker_consumer`."""

    class Blueprint(consumer.Consumer.Blueprint):  # type: ignore[misc] # Celery has no types
        """Its parts."""

        default_steps = tuple(
            step for step in consumer.Consumer.Blueprint.default_steps if not step.endswith(":DelayedDelivery")
        )
