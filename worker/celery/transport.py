"""Celery's Redis transport with a fix: a Celery 5.7 worker with unacknowledged messages ends if Redis restarts.

On a lost connection Celery closes the channel. kombu then tries to put unacknowledged messages back over the closed
connection, and Celery does not handle the AttributeError that follows. The messages are safe where they are (`unacked`
in Redis): the visibility timeout delivers them again.
"""

from collections.abc import Callable
from typing import Any

from kombu.transport import redis as kombu_redis
from redis.exceptions import ConnectionError as RedisConnectionError


class QoS(kombu_redis.QoS):
    """Acknowledgements that survive a closed channel."""

    def restore_unacked(self, client: Any = None) -> None:
        """Put unacknowledged messages back; if the connection is lost, leave them to the visibility timeout."""
        try:
            super().restore_unacked(client)
        except Exception:  # noqa: BLE001 - whatever the error is, the messages are still in Redis
            self._delivered.clear()

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge. Raises redis's ConnectionError if the connection is lost."""
        self._on_open_channel(super().ack, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        """Reject. Raises redis's ConnectionError if the connection is lost."""
        self._on_open_channel(super().reject, delivery_tag, requeue=requeue)

    def _on_open_channel(self, act: Callable[..., None], *args: Any, **options: Any) -> None:
        try:
            act(*args, **options)
        except AttributeError as error:
            if self.channel.connection is None or self.channel.closed:
                raise RedisConnectionError("the channel is closed") from error
            raise


class Channel(kombu_redis.Channel):
    """A Redis channel with the fixed acknowledgements."""

    QoS = QoS


class Transport(kombu_redis.Transport):
    """The transport that the Celery configuration names as `broker_transport`."""

    Channel = Channel
