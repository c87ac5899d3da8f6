"""Celery's configuration, made from the settings. Each choice is explained."""

import math
from typing import Any

from kombu.entity import Exchange, Queue

from outwait.config.settings import Settings
from outwait.config.urls import RedisAddress, address_of

SUBMIT_TASK = "tasks.submit"
"""The task that producers send, by its wire name."""

_STEP_TASKS = {
    "tasks.submit_due": "submit",
    "tasks.poll": "poll",
    "tasks.callback": "callback",
    "tasks.deliver": "deliver",
}


def celery_config(settings: Settings) -> dict[str, Any]:
    """The values for `app.conf`."""
    return _content() | _queues(settings) | _worker(settings) | _broker(settings) | _results(settings)


def _content() -> dict[str, Any]:
    return {
        # Only JSON: with pickle, anyone who can write to the broker could run code.
        "task_serializer": "json",
        "result_serializer": "json",
        "event_serializer": "json",
        "accept_content": ["json"],
        "result_accept_content": ["json"],
        "enable_utc": True,
        "timezone": "UTC",
    }


def _queues(settings: Settings) -> dict[str, Any]:
    steps = settings.step_queues
    # On Redis the intake takes producers' messages: Celery's consumer can lose what it pops there.
    consumed = [_queue(name) for name in steps.values()]
    if not settings.broker_is_redis:
        intake = settings.intake
        consumed += [_queue(name, intake.queue_type) for name in (intake.queue, intake.expired_queue)]
    routes = {task: {"queue": steps[step]} for task, step in _STEP_TASKS.items()}
    return {
        # One queue for each step: slow deliveries do not hold back polls, and a worker can serve only some steps.
        "task_queues": consumed,
        "task_routes": routes | {SUBMIT_TASK: {"queue": settings.intake.queue}},
    }


def _queue(name: str, kind: str = "classic") -> Queue:
    # RabbitMQ refuses another declaration of a queue that exists; a classic one is declared without arguments. Where
    # Celery sees a quorum queue, it asks for no global prefetch, which such queues refuse.
    arguments = {"x-queue-type": kind} if kind != "classic" else None
    return Queue(name, Exchange(name), routing_key=name, queue_arguments=arguments)  # type: ignore[no-untyped-call] # typed in part


def _worker(settings: Settings) -> dict[str, Any]:
    internal = settings.events.internal
    return {
        # A batch is acknowledged when it starts: its leases are the guarantee, and a second start is refused.
        "task_acks_late": False,
        "task_annotations": {
            # Jobs have their own rows in Flower. Events of batches would hide them, and cost 40 % of the throughput.
            "*": {"send_events": internal},
            SUBMIT_TASK: {"send_events": internal, "acks_late": True, "reject_on_worker_lost": True},
        },
        "task_ignore_result": True,  # a batch has no result; a job's result is stored under the job's id
        "task_send_sent_event": internal,
        "worker_send_task_events": internal,
        "worker_consumer": "outwait.worker.celery.consumer:Consumer",
        "worker_pool": "threads",  # a thread only hands its batch to the event loop
        "worker_concurrency": settings.worker.concurrency,
        "worker_prefetch_multiplier": 1,  # what one worker reserves, another worker could do now
        "worker_soft_shutdown_timeout": settings.worker.handoff,  # on a cold shutdown threads still end their batch
        "worker_cancel_long_running_tasks_on_connection_loss": True,  # they are delivered again
        "worker_enable_remote_control": True,  # for Flower and its Revoke button
        "worker_hijack_root_logger": False,  # config.logs sets logging up
        "worker_redirect_stdouts": False,  # what a handler prints is not changed
    }


def _broker(settings: Settings) -> dict[str, Any]:
    address = address_of(settings.broker) if settings.broker_is_redis else None
    common = {
        "broker_url": address.kombu_url if address else settings.broker,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,  # after a long outage a worker that gave up would need a person
        "broker_channel_error_retry": True,  # a replica during a failover answers READONLY: wait, do not exit
    }
    if address is None:
        return common
    transport = "SentinelTransport" if address.master else "Transport"
    return common | {
        # With Celery 5.7's own transport, a restart of Redis ends the worker.
        "broker_transport": f"outwait.worker.celery.transport:{transport}",
        "broker_use_ssl": address.tls,
        "broker_transport_options": _redis_transport(settings) | _sentinels(address),
    }


def _sentinels(address: RedisAddress) -> dict[str, Any]:
    """Options of kombu's transport and of Celery's result backend."""
    if not address.master:
        return {}
    return {"master_name": address.master, "sentinel_kwargs": address.for_sentinels}


def _redis_transport(settings: Settings) -> dict[str, Any]:
    steps = (settings.submit, settings.poll, settings.callback, settings.deliver)
    return {
        # As long as the longest lease: a message delivered again then is refused by its fence, so nothing runs twice.
        "visibility_timeout": math.ceil(max(step.lease for step in steps)),
        # Our own names: with the default ones, this short time would redeliver running tasks of other Celery apps.
        "unacked_key": f"{settings.namespace}.unacked",
        "unacked_index_key": f"{settings.namespace}.unacked_index",
        "unacked_mutex_key": f"{settings.namespace}.unacked_mutex",
        # Check every second; kombu's default is every 100 s.
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        # Without these a half-open connection blocks the worker for ever.
        "socket_timeout": 10,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 10,
    }


def _results(settings: Settings) -> dict[str, Any]:
    if not settings.events.results:
        return {"result_backend": None}
    address = settings.redis_address
    return {
        "result_backend": address.kombu_url,  # always Redis: producers wait there for AsyncResult(job_id).get()
        "result_backend_transport_options": _sentinels(address),
        "result_expires": settings.events.results_expire,
        "redis_backend_use_ssl": address.tls,
        "redis_socket_timeout": settings.store.timeout,
        "redis_socket_connect_timeout": 5.0,
        "redis_socket_keepalive": True,
        "redis_backend_health_check_interval": 10,
    }
