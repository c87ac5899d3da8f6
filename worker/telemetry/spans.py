"""Spans for OpenTelemetry. Its own OTEL_* variables configure the exporter and the sampling.

Each job has one span, a child of the producer's span; the spans of its steps are children of the job's span. All
workers must use the same id for it, so it is derived from the job id. So is the trace id, if the producer sent none.
"""

from hashlib import sha256
from threading import Timer
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from outwait.worker.model.jobs import Claim, JobState, Step, job_of
from outwait.worker.model.lanes import Lane
from outwait.worker.model.outcomes import Dead, End, Fanout, Hold, Outcome, Redeliver, Retry, Uncertain

LAST_EXPORT = 3.0
"""Seconds that a stopping worker has to send its last spans."""

SHOWN = 300
"""Characters of a reason in a span."""

_KINDS: dict[Step | None, SpanKind] = {Step.CALLBACK: SpanKind.INTERNAL, Step.DELIVER: SpanKind.PRODUCER}


class _Place(NamedTuple):
    """The ids of a job's trace, its span and its producer's span (0: none), and whether it is sampled."""

    trace: int
    span: int
    parent: int
    flags: TraceFlags


class Spans:
    """The spans of one process. The namespace distinguishes the jobs of two installations."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._ids = _Ids()
        self._provider = TracerProvider(resource=_resource(), id_generator=self._ids)
        self._exporter = OTLPSpanExporter()
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("outwait")

    def step(self, lane: Lane, claim: Claim, began: int, now_ms: int, outcome: Outcome) -> None:
        """See `outwait.worker.telemetry.traces.Tracer`."""
        job_id = job_of(claim.work_id) if lane.step is Step.DELIVER else claim.work_id
        place = self._place(job_id, claim.trace)
        span = self._tracer.start_span(
            f"{lane.step} {_shown(lane.name) or claim.provider}",
            context=_under(place.trace, place.span, place.flags),
            kind=_KINDS.get(lane.step, SpanKind.CLIENT),
            start_time=began,
            attributes=_about(job_id, claim)
            | {"outwait.outcome": _name(outcome), "outwait.late": _late(claim, now_ms)},
        )
        _fail(span, _reason(outcome))
        span.end()
        if isinstance(outcome, Fanout):
            self._job(place, claim, now_ms)

    def close(self) -> None:
        """See `Tracer`. A collector that does not answer delays a worker's end by at most `LAST_EXPORT`."""
        timeout = Timer(LAST_EXPORT, self._exporter.shutdown)
        timeout.daemon = True
        timeout.start()
        self._provider.shutdown()
        timeout.cancel()

    def _job(self, place: _Place, claim: Claim, now_ms: int) -> None:
        """Record the job's span, from its enqueue to its end, which is when its callback became due."""
        ended = now_ms if claim.attempts or not claim.due_ms else claim.due_ms
        self._ids.preset = place
        span = self._tracer.start_span(
            f"job {claim.provider}.{claim.operation}",
            context=_under(place.trace, place.parent, place.flags) if place.parent else Context(),
            kind=SpanKind.CONSUMER,
            start_time=claim.created_ms * 1_000_000,
            attributes=_about(claim.work_id, claim) | {"outwait.outcome": claim.state},
        )
        self._ids.preset = None
        _fail(span, "" if claim.state == JobState.SUCCEEDED else claim.state)
        span.end(ended * 1_000_000)

    def _place(self, job_id: str, trace: str) -> _Place:
        digest = sha256(f"{self._namespace}:{job_id}".encode()).digest()
        span = int.from_bytes(digest[16:24]) or 1
        if trace:
            _, trace_id, parent, flags = trace.split("-")
            return _Place(int(trace_id, 16), span, int(parent, 16), TraceFlags(int(flags, 16)))
        trace_number = int.from_bytes(digest[:16]) or 1
        # The sampler decides by the trace id, so that the decision is the same for the job's span and for its steps.
        decision = self._provider.sampler.should_sample(Context(), trace_number, "job").decision
        sampled = decision is Decision.RECORD_AND_SAMPLE
        return _Place(trace_number, span, 0, TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT))


class _Ids(RandomIdGenerator):
    """Random ids, except for a span whose ids are preset."""

    preset: _Place | None = None

    def generate_span_id(self) -> int:
        """The id of the next span."""
        return self.preset.span if self.preset else super().generate_span_id()

    def generate_trace_id(self) -> int:
        """The id of the next trace."""
        return self.preset.trace if self.preset else super().generate_trace_id()


def _resource() -> Resource:
    resource = Resource.create()
    has_name = not str(resource.attributes.get(SERVICE_NAME, "unknown_service")).startswith("unknown_service")
    return resource if has_name else resource.merge(Resource({SERVICE_NAME: "outwait"}))


def _under(trace: int, span: int, flags: TraceFlags) -> Context:
    parent = SpanContext(trace, span, is_remote=True, trace_flags=flags)
    return set_span_in_context(NonRecordingSpan(parent), Context())


def _about(job_id: str, claim: Claim) -> dict[str, Any]:
    return {"outwait.job": job_id, "outwait.provider": claim.provider, "outwait.operation": claim.operation}


def _shown(name: str) -> str:
    """The name of a handler or provider. Of a URL only the host, because its path may be a secret."""
    return urlsplit(name).hostname or "" if name.startswith(("http:", "https:")) else name


def _name(outcome: Outcome) -> str:
    return str(outcome.state) if isinstance(outcome, End) else type(outcome).__name__.lower()


def _late(claim: Claim, now_ms: int) -> float:
    """Delay in seconds; 0 if a worker of the previous release made the claim."""
    return max(0, now_ms - claim.due_ms) / 1000 if claim.due_ms else 0.0


def _reason(outcome: Outcome) -> str:
    """Why a step did not succeed; "" if it did."""
    match outcome:
        case Retry() | Uncertain() | Hold():
            return outcome.reason
        case Redeliver() | Dead() | End():
            return outcome.error
        case _:
            return ""


def _fail(span: Span, reason: str) -> None:
    if reason:
        span.set_status(StatusCode.ERROR, reason[:SHOWN])
