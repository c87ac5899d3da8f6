"""Traces as a collector gets them: a real OTLP/HTTP receiver, a real worker; and that none of it exists when off."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from celery import Celery
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from outwait.cli.exits import Exit
from outwait.config.errors import ConfigError
from outwait.config.groups import TraceSettings
from outwait.config.settings import Settings
from outwait.worker.local.embedded import free_port
from outwait.worker.telemetry.traces import tracer
from tests.patience import PATIENCE
from tests.stack import ROOT, WORKER, Stack, closed, query, until

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"

HANDLERS = """
import logging

from outwait import Envelope, handler


@handler("crm")
def crm(envelope: Envelope) -> None:
    logging.getLogger("crm").info("taken", extra={"attempt": envelope.attempt})
    if envelope.attempt == 1:
        raise RuntimeError("not yet")
"""


class Collector:
    """An OTLP receiver."""

    def __init__(self) -> None:
        self.port = free_port()
        self.spans: list[Span] = []
        self.services: set[str] = set()

    async def take(self, request: web.Request) -> web.Response:
        received = ExportTraceServiceRequest.FromString(await request.read())
        for resource in received.resource_spans:
            self.services |= {at.value.string_value for at in resource.resource.attributes if at.key == "service.name"}
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]
        return web.Response(content_type="application/x-protobuf")

    def of(self, job_id: str) -> list[Span]:
        return [span for span in self.spans if _attributes(span)["outwait.job"] == job_id]


def _attributes(span: Span) -> dict[str, Any]:
    return {at.key: getattr(at.value, at.value.WhichOneof("value") or "") for at in span.attributes}


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    collector, app = Collector(), web.Application()
    app.router.add_post("/v1/traces", collector.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", collector.port).start()
    yield collector
    await runner.cleanup()


@pytest.fixture
def stack(redis_url: str, tmp_path: Path) -> Iterator[Stack]:
    (tmp_path / "traced.py").write_text(HANDLERS)
    variables = {
        "OUTWAIT_HANDLERS__MODULES": "traced",
        "OUTWAIT_TRACES__ENABLED": "true",
        "OUTWAIT_LOG__FORMAT": "json",
    }
    with Stack(redis_url, tmp_path, options={"behaviour": {"duration": 0.4}}, variables=variables) as running:
        yield running


async def test_a_job_is_one_trace_from_its_producer_to_its_last_delivery(stack: Stack, collector: Collector) -> None:
    endpoint = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    for _ in range(2):  # two workers that never meet
        stack.worker(**endpoint)
    with Celery("shop", broker=stack.variables["OUTWAIT_REDIS_URL"]) as shop:
        kwargs = query("sent", targets=["crm"]).model_dump(exclude_defaults=True)
        headers = {"traceparent": TRACEPARENT}
        sent = shop.send_task(
            "tasks.submit", kwargs=kwargs, headers=headers, queue=stack.settings.intake.queue, ignore_result=True
        ).id
    async with stack.client() as client:
        direct = (await client.enqueue(query("direct", targets=["crm"]), trace=TRACEPARENT)).job_id
        parentless = (await client.enqueue(query("alone", targets=["crm"]), trace="rubbish")).job_id
        jobs = [await until(_found(client, job), what=job) for job in (sent, direct, parentless)]
        polls = {job.id: (await closed(client, job.id)).ledger.polls for job in jobs}

        async def arrived() -> bool:
            return all(len(collector.of(job)) == polls[job] + 5 for job in polls)

        await until(arrived, what=f"all spans of {polls}")
    assert collector.services == {"outwait"}
    for job, parent in ((sent, PARENT), (direct, PARENT), (parentless, "")):
        spans = collector.of(job)
        job_span = _check(spans, polls[job])
        assert job_span.parent_span_id.hex() == parent
        assert (job_span.trace_id.hex() == TRACE) == bool(parent)
    lines = [json.loads(line) for line in stack.logs().splitlines() if '"taken"' in line]
    named = {(line["job"], line["provider"], line["step"], line["delivery"], line["attempt"]) for line in lines}
    assert named == {(job, "unless", "deliver", f"{job}#1", attempt) for job in polls for attempt in (1, 2)}


def _found(client: Any, job_id: str) -> Any:
    async def look() -> Any:
        page = await client.jobs(limit=10)
        return next((job for job in page.jobs if job.id == job_id), None)

    return look


def _check(spans: list[Span], polls: int) -> Span:
    """One trace; a span for the job, and its steps under it. Gives the job's own span."""
    assert len({span.trace_id for span in spans}) == 1
    names = sorted(span.name for span in spans)
    steps = ["callback unless", "deliver crm", "deliver crm", "job unless.query", *["poll unless"] * polls]
    assert names == [*steps, "submit unless"]
    (job_span,) = [span for span in spans if span.name == "job unless.query"]
    for span in spans:
        about = _attributes(span)
        assert about["outwait.provider"] == "unless"
        assert about["outwait.operation"] == "query"
        assert 0 <= about.get("outwait.late", 0) < PATIENCE
        assert span.start_time_unix_nano <= span.end_time_unix_nano
        assert span is job_span or span.parent_span_id == job_span.span_id
    assert _attributes(job_span)["outwait.outcome"] == "succeeded"
    outcomes = {_attributes(span)["outwait.outcome"]: span.status.code for span in spans if "deliver" in span.name}
    assert outcomes == {"redeliver": Status.STATUS_CODE_ERROR, "delivered": Status.STATUS_CODE_UNSET}
    return job_span


def test_without_traces_opentelemetry_is_not_imported(stack: Stack) -> None:
    code = (
        "import sys; from outwait.worker.app import app; "
        "from outwait.tasks import submit, poll, callback, deliver;"
        # redis-py looks at OpenTelemetry's metrics itself, where they are installed
        "assert app.runtime; app.runtime.close();"
        "assert not {'outwait.worker.telemetry.spans', 'opentelemetry.sdk.trace', 'opentelemetry.exporter'}"
        " & sys.modules.keys()"
    )
    environment = {**stack.environment, "OUTWAIT_TRACES__ENABLED": "false"}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, timeout=PATIENCE)


def test_traces_without_their_package_end_the_worker_with_advice(stack: Stack) -> None:
    (stack.folder / "opentelemetry.py").write_text("raise ImportError('no opentelemetry here')\n")
    done = subprocess.run(
        WORKER, cwd=ROOT, env=stack.environment, check=False, timeout=PATIENCE, capture_output=True, text=True
    )
    assert done.returncode == Exit.CONFIG
    assert "OUTWAIT_TRACES__ENABLED is on" in done.stderr
    assert "outwait[traces]" in done.stderr


def test_a_wrong_variable_of_opentelemetry_is_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "1")
    traced = settings.model_copy(update={"traces": TraceSettings(enabled=True)})
    with pytest.raises(ConfigError, match=r"OTEL_\*"):
        tracer(traced)
    assert tracer(settings) is None
