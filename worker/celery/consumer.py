"""Celery's consumer, without its delayed delivery; it keeps for a person what it cannot decode.

Beside a quorum queue Celery's makes 28 queues (`celery_delayed_…`) in a RabbitMQ that is not ours, and warns that
countdowns block the worker. Here every countdown is kept in the store.

Celery logs a message that it cannot decode, and acknowledges it. A producer's message that holds more than may be
inflated, or that is damaged, would be gone on a broker that is not Redis, where the intake does not read it itself.
"""

from typing import Any

from celery.worker import consumer


class Consumer(consumer.Consumer):  # type: ignore[misc] # Celery has no types
    """Named in `worker_consumer`."""

    class Blueprint(consumer.Consumer.Blueprint):  # type: ignore[misc] # Celery has no types
        """Its parts."""

        default_steps = tuple(
            step for step in consumer.Consumer.Blueprint.default_steps if not step.endswith(":DelayedDelivery")
        )

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Park a producer's message; while the store is away, Celery only logs it."""
        queue = (message.delivery_info or {}).get("routing_key")
        if queue == self.app.settings.intake.queue and self.app.parks(message.body, f"{type(exc).__name__}: {exc}"):
            message.ack()
        else:
            super().on_decode_error(message, exc)
