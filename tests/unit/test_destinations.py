"""Which streams and queues targets may name."""

import pytest

from outwait.config.errors import ConfigError
from outwait.config.settings import Settings, load_settings
from outwait.worker.model.destinations import Destinations
from outwait.worker.model.targets import parse

RABBITMQ = "amqp://guest:guest@127.0.0.1/"


def refusal(target: str, **handlers: object) -> str:
    settings = Settings(handlers=handlers, intake={"queue": "shop:jobs"}, _env_file=None)  # type: ignore[arg-type]
    return Destinations.of(settings).refusal(parse(target))


NEVER = (
    *("unacked", "unacked_index", "unacked_mutex", "shop:unacked", "shopunacked_index"),
    *("outwait", "outwait.unacked", "outwait.submit", "outwait.deliver", "outwait.x", "shop:jobs"),
    *("_kombu.binding.celery", "_kombu.binding_permanent.celery", "_kombu.binding_deadlines", "shop:_kombu.binding.x"),
    *("celery.pidbox", "reply.celery.pidbox", "celery@host.celery.pidbox", "/0.celery.pidbox"),
    *("celeryev", "celeryev.0b1c", "/0.celeryev/worker.heartbeat", "shop/celeryev"),
    *("celery-task-meta-job-1", "shop:celery-task-meta-job-1", "celery-taskset-meta-1", "chord-unlock-1", "amq.gen-1"),
)
"""Names of Celery, kombu, RabbitMQ and of our own."""


@pytest.mark.parametrize("name", NEVER)
def test_names_of_celery_and_of_ours_are_never_allowed(name: str) -> None:
    for form in ("stream://{}", "stream://{}?maxlen=1", "celery://crm.store?queue={}"):
        target = form.format(name)
        assert "never allowed" in refusal(target, streams=["*", name], queues=["*", name]), target
        assert "never allowed" in refusal(target, routes=[{"targets": [target]}]), target


@pytest.mark.parametrize(
    ("target", "settings", "why"),
    [
        ("crm", {}, ""),
        ("https://crm.example/hook", {}, ""),
        ("file:unacked.jsonl", {}, ""),
        ("stream://outwait-stream:calls", {}, ""),
        ("celery://crm.store?queue=outwait-queue:crm", {}, ""),
        ("stream://transcripts", {}, "OUTWAIT_HANDLERS__STREAMS (now: outwait-stream:*)"),
        ("stream://outwait-queue:crm", {}, "OUTWAIT_HANDLERS__QUEUES lists it as a queue"),
        ("celery://crm.store?queue=crm", {}, "OUTWAIT_HANDLERS__QUEUES (now: outwait-queue:*)"),
        ("celery://crm.store?queue=outwait-stream:x", {}, "OUTWAIT_HANDLERS__QUEUES"),
        ("celery://crm.store", {}, "queue celery is not allowed"),
        ("celery://crm.store", {"queues": ["*"]}, "queue celery is not allowed"),
        ("celery://crm.store", {"queues": ["celery"]}, ""),
        ("stream://celery", {"streams": ["*"]}, "never allowed"),
        ("stream://shop:celery", {"streams": ["*"]}, "never allowed"),
        ("stream://transcripts", {"streams": ["transcripts"]}, ""),
        ("stream://transcripts?maxlen=5", {"streams": ["transcripts"]}, ""),
        ("stream://transcripts2", {"streams": ["transcripts"]}, "not allowed"),
        ("stream://outwait-stream:calls", {"streams": []}, "now: none"),
        ("stream://crm", {"streams": ["*"], "queues": ["crm"]}, "lists it as a queue"),
        ("celery://crm.store?queue=crm", {"queues": ["crm-*", "crm"]}, ""),
        ("stream://transcripts", {"routes": [{"targets": ["stream://transcripts"]}]}, ""),
        ("stream://transcripts?maxlen=1", {"routes": [{"targets": ["stream://transcripts"]}]}, "not allowed"),
        ("celery://crm.store", {"routes": [{"targets": ["no such://x", "celery://crm.store?queue=celery"]}]}, ""),
        ("celery://crm.drop", {"routes": [{"targets": ["celery://crm.store"]}]}, "not allowed"),
    ],
)
def test_what_the_operator_lists_or_routes_is_allowed(target: str, settings: dict[str, object], why: str) -> None:
    given = refusal(target, **settings)
    assert why in given
    assert bool(given) is bool(why)


def test_a_queue_of_rabbitmq_is_no_key_of_redis() -> None:
    handlers = {"streams": ["crm"], "queues": ["crm"]}
    settings = Settings(broker_url=RABBITMQ, handlers=handlers, _env_file=None)  # type: ignore[arg-type]
    assert Destinations.of(settings).refusal(parse("stream://crm")) == ""


@pytest.mark.parametrize("wrong", ["stream://transcripts", "{outwait}:lanes", "a b"])
def test_a_pattern_is_a_name_without_scheme(wrong: str) -> None:
    with pytest.raises(ConfigError, match="OUTWAIT_HANDLERS__STREAMS"):
        load_settings(handlers={"streams": [wrong]})


@pytest.mark.parametrize("queue", ["outwait.submit", "outwait.unacked", "_kombu.binding.x", "celery.pidbox"])
def test_producers_have_no_queue_of_such_a_name(queue: str) -> None:
    with pytest.raises(ConfigError, match="producers need another queue"):
        load_settings(intake={"queue": queue})
