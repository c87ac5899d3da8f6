"""What Celery itself makes of the configuration."""

import ssl
import warnings
from typing import Any

import pytest
from celery import Celery
from celery.app.defaults import DEFAULTS
from celery.utils.quorum_queues import detect_quorum_queues

from outwait.config.celery import celery_config
from outwait.config.settings import Settings
from outwait.worker.celery.transport import Transport

STEPS = {
    "tasks.submit_due": "outwait.submit",
    "tasks.poll": "outwait.poll",
    "tasks.callback": "outwait.callback",
    "tasks.deliver": "outwait.deliver",
}


def celery(**settings: Any) -> Celery:
    app = Celery("test", set_as_current=False)
    app.conf.update(celery_config(Settings(_env_file=None, **settings)))
    return app


def nothing() -> None:
    """The body of a task that is never run."""


def test_each_step_has_a_queue_and_producers_queue_is_not_consumed_on_redis() -> None:
    app = celery()
    assert set(app.amqp.queues.consume_from) == set(STEPS.values())
    for task, queue in STEPS.items():
        assert app.amqp.router.route({}, task)["queue"].name == queue
    assert app.amqp.router.route({}, "tasks.submit")["queue"].name == "outwait"


def test_sending_to_another_services_queue_does_not_make_us_consume_it() -> None:
    app = celery()
    assert app.amqp.router.route({"queue": "theirs"}, "their.task")["queue"].name == "theirs"
    assert "theirs" not in app.amqp.queues.consume_from


def test_on_rabbitmq_producers_messages_are_tasks_that_are_acknowledged_late() -> None:
    app = celery(broker_url="amqp://u:p@host//", intake={"queue": "in"})
    assert set(app.amqp.queues.consume_from) == {*STEPS.values(), "in", "in.expired"}
    assert app.conf.broker_transport is None
    assert app.connection_for_read().transport.driver_type == "amqp"
    submit, poll = (
        app.task(name="tasks.submit", shared=False)(nothing),
        app.task(name="tasks.poll", shared=False)(nothing),
    )
    app.finalize()
    assert submit.acks_late
    assert not poll.acks_late


def test_a_quorum_queue_is_declared_as_such_and_celery_asks_for_no_global_prefetch() -> None:
    app = celery(broker_url="amqp://u:p@host//", intake={"queue": "in", "queue_type": "quorum"})
    arguments = {name: queue.queue_arguments for name, queue in app.amqp.queues.items()}
    quorum = {"x-queue-type": "quorum"}
    assert arguments == {**dict.fromkeys(STEPS.values()), "in": quorum, "in.expired": quorum}
    assert app.conf.worker_detect_quorum_queues
    assert detect_quorum_queues(app, "amqp") == (True, "in")


def test_names_follow_the_namespace() -> None:
    app = celery(namespace="one", intake={"queue": "in"})
    assert set(app.amqp.queues.consume_from) == {"one.submit", "one.poll", "one.callback", "one.deliver"}
    options = app.conf.broker_transport_options
    assert {options["unacked_key"], options["unacked_index_key"]} == {"one.unacked", "one.unacked_index"}


def test_the_mended_transport_carries_messages_and_gets_its_options() -> None:
    connection = celery(redis_url="redis://u:p%40ss@host:6380/2").connection_for_read()
    assert isinstance(connection.transport, Transport)
    assert connection.transport.driver_type == "redis"
    assert (connection.hostname, connection.port, connection.virtual_host) == ("host", 6380, "2")
    assert (connection.userid, connection.password) == ("u", "p@ss")
    assert not connection.ssl
    known = {*Transport.Channel.from_transport_options, "socket_timeout"}
    assert connection.transport_options.keys() <= known


def test_what_is_redelivered_has_outlived_every_lease() -> None:
    app = celery(deliver={"time_limit": 30, "lease": 200.5})
    assert app.conf.broker_transport_options["visibility_timeout"] == 201


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ("", {"ssl_cert_reqs": ssl.CERT_REQUIRED}),
        ("?ssl_cert_reqs=required", {"ssl_cert_reqs": ssl.CERT_REQUIRED}),
        ("?ssl_cert_reqs=none", {"ssl_cert_reqs": ssl.CERT_NONE}),
        (
            "?ssl_ca_certs=/ca%20s.pem&ssl_certfile=/c.pem&ssl_keyfile=/c.key",
            {
                "ssl_cert_reqs": ssl.CERT_REQUIRED,
                "ssl_ca_certs": "/ca s.pem",
                "ssl_certfile": "/c.pem",
                "ssl_keyfile": "/c.key",
            },
        ),
    ],
)
def test_tls_is_as_the_url_says_for_the_broker_for_results_and_for_flower(options: str, wanted: dict[str, Any]) -> None:
    app = celery(redis_url=f"rediss://:pw@host:6380/0{options}")
    broker = {"ssl_cert_reqs": ssl.CERT_REQUIRED} | app.connection_for_read().ssl  # redis-py's own default
    results, flower = app.backend.connparams, app.conf.broker_use_ssl
    for connection in (broker, results, flower):
        assert {name: value for name, value in connection.items() if name.startswith("ssl_")} == wanted


def test_only_json_is_read_and_written() -> None:
    conf = celery().conf
    assert conf.accept_content == conf.result_accept_content == ["json"]
    assert {conf.task_serializer, conf.result_serializer, conf.event_serializer} == {"json"}


@pytest.mark.parametrize("internal", [True, False])
def test_batches_send_events_only_if_asked(internal: bool) -> None:  # noqa: FBT001 - a parameter of the test
    app = celery(events={"internal": internal})
    poll = app.task(name="tasks.poll", shared=False)(nothing)
    app.finalize()
    assert poll.send_events is internal
    assert app.conf.worker_send_task_events is internal


def test_results_are_kept_in_the_stores_redis_if_wanted() -> None:
    app = celery(redis_url="redis://host/4", broker_url="amqp://host//", events={"results_expire": 60})
    assert app.backend.connparams["db"] == 4
    assert app.backend.expires == 60
    assert celery(events={"results": False}).conf.result_backend is None


def test_celery_knows_every_setting_and_deprecates_none() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        app = celery(redis_url="rediss://host")
        unknown = [name for name in celery_config(Settings(_env_file=None)) if name not in DEFAULTS]
    assert unknown == ["redis_backend_health_check_interval"]  # read by the backend, and undeclared
    assert app.conf.task_ignore_result
    assert app.conf.broker_connection_max_retries is None
