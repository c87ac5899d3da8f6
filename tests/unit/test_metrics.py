"""What /metrics exports, by Prometheus's rules; and that the dashboard and the operators' page ask for nothing else."""

import json
import re
from pathlib import Path

import pytest
from prometheus_client import Metric

from outwait.web.metrics import Reading, families, ready
from outwait.worker.model.counts import LATE_BOUNDS, REQUEST_BOUNDS, result_of
from outwait.worker.model.jobs import Claim, JobState, Step
from outwait.worker.model.lanes import BACKLOG, Lane
from outwait.worker.store.governors import Breaker, GroupStatus
from outwait.worker.store.reads import LaneStatus
from outwait.worker.store.statistics import quantile
from outwait.worker.telemetry.tally import Tally

ROOT = Path(__file__).parent.parent.parent


def provider_status(**fields: object) -> GroupStatus:
    known: dict[str, object] = {
        "provider": "unless", "rate": 0, "rate_limit": None, "rate_window": 60.0, "in_flight": 0,
        "in_flight_limit": None, "jobs": 0, "jobs_limit": None, "paused_until": None, "paused_why": "",
        "suspended_since": None, "suspended_why": "", "breaker": Breaker.CLOSED, "breaker_until": None,
        "breaker_why": "", "outages": 0,
    }  # fmt: skip
    return GroupStatus(**{**known, **fields})  # type: ignore[arg-type]


@pytest.fixture
def exported() -> dict[str, Metric]:
    """Every metric, with at least one sample."""
    tally = Tally()
    tally.request("unless", "polls", "2xx", 0.2)
    tally.request("unless", "polls", "429", 99)
    tally.started(
        Lane.parse("poll:unless"),
        [Claim(work_id="a", fence=1, due_ms=1_000), Claim(work_id="b", fence=1, due_ms=1_400)],
        now_ms=1_500,
    )
    counted = {tuple(map(str, name)): number for name, number in tally.take().items()}
    counted |= {("state", "unless", "failed"): 2, ("accepted", "unless"): 3, ("event", "retry"): 1}
    counted |= {("delivery", "function", "dead"): 1, ("opened", "unless"): 1, ("orphaned", "unless"): 1}
    reading = Reading(
        jobs={"unless": dict.fromkeys(JobState, 1)},
        lanes=[
            LaneStatus(Lane.parse("deliver:crm"), 1, 0, 2, 3.0),
            LaneStatus(BACKLOG, 7, 9, 0, 2.0),
            LaneStatus(Lane.parse("deliver:file:a.jsonl"), 4, 0, 0, 1.0),
        ],
        providers=[provider_status(rate_limit=10, in_flight_limit=5)],
        held={"unless": 1},
        dead=1,
        inbox=7,
        batches={"poll": 2},
        counted=counted,
    )
    return {family.name: family for family in families(reading)}


def of(family: Metric, suffix: str = "", **labels: str) -> float:
    (sample,) = [sample for sample in family.samples if sample.name == family.name + suffix and sample.labels == labels]
    return float(sample.value)


def test_names_follow_the_conventions(exported: dict[str, Metric]) -> None:
    for name, family in exported.items():
        assert re.fullmatch(r"outwait(_[a-z]+)+", name)
        assert not re.search(r"_(total|count|sum|bucket|info|ms|milliseconds|minutes)$", name)
        assert family.type != "histogram" or name.endswith("_seconds")
        assert family.documentation.endswith(".")
        assert family.samples, name
        for sample in family.samples:
            assert all(re.fullmatch(r"[a-z]+", label) for label in sample.labels)


def test_histograms_are_cumulative_and_counted(exported: dict[str, Metric]) -> None:
    took = exported["outwait_request_seconds"]
    assert of(took, "_bucket", provider="unless", kind="polls", le="0.1") == 0
    assert of(took, "_bucket", provider="unless", kind="polls", le="0.25") == 1
    assert of(took, "_bucket", provider="unless", kind="polls", le="+Inf") == 2
    assert of(took, "_count", provider="unless", kind="polls") == 2
    assert of(took, "_sum", provider="unless", kind="polls") == pytest.approx(99.2)
    late = exported["outwait_late_seconds"]
    assert of(late, "_bucket", step="poll", provider="unless", le="0.1") == 1
    assert of(late, "_sum", step="poll", provider="unless") == pytest.approx(0.6)
    assert of(exported["outwait_requests"], "_total", provider="unless", kind="polls", result="429") == 1


def test_handlers_are_shown_together(exported: dict[str, Metric]) -> None:
    assert of(exported["outwait_due_jobs"], step="deliver", provider="") == 5 + 7
    assert of(exported["outwait_ready_jobs"], step="deliver", provider="") == 5, (
        "a backlog waits for room, not for workers"
    )
    assert of(exported["outwait_leased_jobs"], step="deliver", provider="") == 2
    assert of(exported["outwait_oldest_due_seconds"], step="deliver", provider="") == 3


@pytest.mark.parametrize(
    ("fields", "submits", "polls"),
    [
        ({}, 8, 8),
        ({"rate_limit": 10, "rate": 7}, 3, 3),
        ({"in_flight_limit": 4, "in_flight": 4}, 0, 0),
        ({"jobs_limit": 2, "jobs": 1}, 1, 8),
        ({"paused_until": 1.0}, 0, 0),
        ({"suspended_since": 1.0}, 0, 0),
        ({"breaker": Breaker.OPEN}, 0, 0),
        ({"breaker": Breaker.PROBING}, 1, 1),
        ({"breaker": Breaker.PROBING, "suspended_since": 1.0}, 0, 0),
    ],
)
def test_work_that_is_held_back_asks_for_no_workers(fields: dict[str, object], submits: int, polls: int) -> None:
    lane = LaneStatus(Lane.parse("poll:unless"), 8, 0, 0, 0.0)
    assert ready(lane, Step.SUBMIT, provider_status(**fields)) == submits
    assert ready(lane, Step.POLL, provider_status(**fields)) == polls
    assert ready(lane, Step.DELIVER, None) == 8


@pytest.mark.parametrize("page", ["docs/grafana.json", "docs/operations.md"])
def test_whoever_asks_for_a_metric_gets_it(exported: dict[str, Metric], page: str) -> None:
    samples = {sample.name: set(sample.labels) for family in exported.values() for sample in family.samples}
    samples |= {name: set() for name, family in exported.items() if family.type == "histogram"}
    text = (ROOT / page).read_text()
    asked = set(re.findall(r"\boutwait(?:_[a-z]+)+\b", text.replace("\\", "")))
    assert len(asked) > 3
    assert asked <= samples.keys()
    for name, selector in re.findall(r"(outwait_[a-z_]+)\{([^}]*)\}", text.replace("\\", "")):
        assert set(re.findall(r"(\w+)[=!]", selector)) <= samples[name]


def test_the_dashboard_can_be_provisioned() -> None:
    board = json.loads((ROOT / "docs/grafana.json").read_text())
    assert [variable["type"] for variable in board["templating"]["list"]] == ["datasource", "query"]
    sources = {target["datasource"]["uid"] for panel in board["panels"] for target in panel["targets"]}
    assert sources == {"${datasource}"}
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert "id" not in board


def test_quantile() -> None:
    none = [0] * (len(LATE_BOUNDS) + 1)
    assert quantile(LATE_BOUNDS, none, 0.95) is None
    assert quantile((1.0, 2.0), [100, 0, 0], 0.95) == pytest.approx(0.95)
    assert quantile((1.0, 2.0), [50, 50, 0], 0.95) == pytest.approx(1.9)
    assert quantile((1.0, 2.0), [0, 0, 5], 0.95) == 2.0


def test_results_are_few() -> None:
    assert [result_of(status) for status in (200, 204, 302, 404, 429, 503, 999)] == [
        "2xx", "2xx", "3xx", "4xx", "429", "5xx", "other",
    ]  # fmt: skip
    assert tuple(sorted(REQUEST_BOUNDS)) == REQUEST_BOUNDS


def test_what_could_not_be_added_is_not_lost() -> None:
    tally = Tally()
    tally.request("unless", "polls", "2xx", 0.2)
    taken = tally.take()
    tally.request("unless", "polls", "2xx", 0.2)
    tally.give_back(taken)
    assert tally.take()["requests", "unless", "polls", "2xx", 3] == 2
    assert not tally.take()
