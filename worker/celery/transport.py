"""Celery's Redis transport, which outlives a Redis that restarts and one that refuses writes.

On a lost connection Celery closes the channel. kombu then tries to put unacknowledged messages back over the closed
connection, and Celery does not handle the AttributeError that follows: a Celery 5.7 worker ends. The messages are safe
where they are (`unacked` in Redis): the visibility timeout delivers them again.

While Redis refuses writes (a read-only replica, a full disk), kombu's errors make Celery start its consumer again, some
twenty times a second, with its log lines. Here it waits on the connection that it has.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty
from typing import Any

from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.retry import Retry

AT_ONCE = Retry(NoBackoff(), 1)
"""Another sentinel is asked at once; redis-py's own retries ask one that is away for ten seconds."""

REFUSED_PAUSE = 0.5
"""Seconds between two questions for messages while Redis refuses them. Celery's event loop stands still meanwhile."""


class QoS(kombu_redis.QoS):
    """Acknowledgements that survive a closed channel, and a Redis that refuses writes.

    What cannot be written is only the copy of a message that would be delivered again: leases see to the work.
    """

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note that a message was delivered."""
        try:
            super().append(message, delivery_tag)
        except ResponseError:
            virtual.QoS.append(self, message, delivery_tag)

    def restore_visible(self, *args: Any, **options: Any) -> None:
        """Deliver again what was not acknowledged in time; while that cannot be written, later."""
        with suppress(ResponseError):
            super().restore_visible(*args, **options)

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
        except ResponseError:
            virtual.QoS.ack(self, *args)
        except AttributeError as error:
            if self.channel.connection is None or self.channel.closed:
                raise RedisConnectionError("the channel is closed") from error
            raise


class _Patient(kombu_redis.Channel):
    """A Redis channel with the fixed acknowledgements."""

    QoS = QoS

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except ResponseError as error:
            time.sleep(REFUSED_PAUSE)
            raise Empty from error

    def maybe_refresh_binding_expiry(self) -> None:
        """Keep the entries of queues that expire; while that cannot be written, later."""
        with suppress(ResponseError):
            super().maybe_refresh_binding_expiry()

    def _queue_bind(self, *names: Any) -> None:
        # Celery starts its consumer again at once: not more often than the store is asked.
        try:
            super()._queue_bind(*names)
        except ResponseError as error:
            time.sleep(REFUSED_PAUSE)
            raise RedisConnectionError(str(error)) from error

    def _put(self, queue: str, message: Any, **options: Any) -> None:
        # To whoever sends, a broker that refuses messages is one that is away: kombu makes an OperationalError of it.
        try:
            super()._put(queue, message, **options)
        except ResponseError as error:
            raise RedisConnectionError(str(error)) from error


class Channel(_Patient):
    """The same, for one server."""


class SentinelChannel(_Patient, kombu_redis.SentinelChannel):
    """The same, for the server that the sentinels name as the master."""

    def _sentinel_managed_pool(self, *args: Any, **options: Any) -> Any:
        self.sentinel_kwargs: dict[str, Any] = {**(self.sentinel_kwargs or {}), "retry": AT_ONCE}
        return super()._sentinel_managed_pool(*args, **options)


class Transport(kombu_redis.Transport):
    """The transport that the Celery configuration names as `broker_transport`."""

    Channel = Channel


class SentinelTransport(kombu_redis.SentinelTransport):
    """The same, where sentinels know the master."""

    Channel = SentinelChannel
