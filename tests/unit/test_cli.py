"""The command line's pure parts: what is typed, what is printed, how errors end."""

import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from pydantic import BaseModel

from outwait.cli.board import COLUMNS, Lines, fitting, summary
from outwait.cli.demo.jobs import planned
from outwait.cli.demo.play import paid_once
from outwait.cli.exits import report_error, rule_for
from outwait.cli.output import print_table, span
from outwait.cli.providers import held_back
from outwait.cli.root import app
from outwait.cli.since import Moment
from outwait.cli.submit import _lines, _params
from outwait.cli.up import needs_a_person
from outwait.config.errors import ConfigError
from outwait.config.exits import Exit
from outwait.config.printable import printable
from outwait.worker.model import errors
from outwait.worker.model.errors import InvalidRequest, OutwaitError
from outwait.worker.model.jobs import Job, JobRequest, JobState
from outwait.worker.model.store_outages import StoreOutage
from outwait.worker.providers.elevateai_params import Chat
from outwait.worker.providers.ringcentral_params import Punctuate, SpeechToText
from outwait.worker.providers.unless import Query
from outwait.worker.store.governors import Breaker, GroupStatus


def family(kind: type[Exception]) -> Iterator[type[Exception]]:
    for child in kind.__subclasses__():
        yield child
        yield from family(child)


def job(state: JobState, name: str = "j", status: str | None = None) -> Job:
    return Job(id=name, provider="unless", operation="query", state=state, created=0, provider_status=status)


@pytest.mark.parametrize("kind", [*family(OutwaitError), ConfigError], ids=lambda kind: kind.__name__)
def test_no_known_error_is_called_a_bug(kind: type[Exception]) -> None:
    assert rule_for(kind("why")).code not in (Exit.OK, Exit.BUG)


def test_an_unknown_error_is_a_bug() -> None:
    assert rule_for(KeyError("x")).code is Exit.BUG


def test_an_error_is_told_with_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert report_error(errors.JobNotFound("no job has the id 'x'")) is Exit.NOT_FOUND
    assert capsys.readouterr().err == "Error: no job has the id 'x'\n`outwait jobs` lists the jobs that are stored.\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidRequest("x"), 3),
        (errors.Conflict("x"), 3),
        (errors.JobNotFound("x"), 4),
        (ConfigError("x"), 6),
        (errors.StoreUnavailable("x"), 7),
        (errors.StoreUnavailable("x", StoreOutage.LOGIN), 6),
        (errors.StoreUnfit("x"), 7),
        (errors.NoRedisServer("x"), 7),
    ],
)
def test_scripts_can_rely_on_the_codes(error: Exception, code: int) -> None:
    assert rule_for(error).code == code


def test_the_page_of_the_command_line_lists_every_exit_code() -> None:
    page = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text()
    for code in Exit:
        assert f"| {code.value} |" in page, code


def test_the_page_of_the_command_line_lists_every_command() -> None:
    page = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text()
    for command in app.registered_commands:
        assert command.callback is not None
        name = command.callback.__name__.replace("_", "-")
        assert re.search(rf"`outwait {name}\b", page), command.callback
    for group in app.registered_groups:
        assert group.typer_instance is not None
        for command in group.typer_instance.registered_commands:
            assert command.callback is not None
            name = f"{group.name} {command.name or command.callback.__name__}"
            assert f"`outwait {name}" in page, name


@pytest.mark.parametrize(("text", "ago"), [("45s", 45), ("30m", 1800), ("1.5h", 5400), ("2d", 172800), ("1w", 604800)])
def test_a_moment_ago(text: str, ago: float) -> None:
    assert Moment.parse(text).at == pytest.approx(time.time() - ago, abs=5)


def test_a_moment_as_a_date() -> None:
    assert Moment.parse("2026-01-31T12:00:00+00:00").at == 1769860800


@pytest.mark.parametrize("text", ["", "yesterday", "-5m", "5", "5 m", "2026-13-01"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="neither a time ago"):
        Moment.parse(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.04, "0.0s"), (9.96, "10.0s"), (59.9, "59s"), (61, "1m 01s"), (3660, "1h 01m"), (90000, "1d 01h")],
)
def test_a_length_of_time(seconds: float | None, text: str) -> None:
    assert span(seconds) == text


def test_text_from_outside_cannot_drive_the_terminal() -> None:
    assert printable("\x1b[31mred\x07\r\nnext\u202e") == "�[31mred���next�"


def test_a_table_that_is_no_terminal_is_cut_by_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("job", "error"), [("a", "x" * 300), ("bb", "y\ninjected")], empty="")
    head, first, second = capsys.readouterr().out.splitlines()
    assert head == "job  error"
    assert first == "a    " + "x" * 300
    assert second == "bb   y�injected"


def test_an_empty_table_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("job",), [], empty="No such jobs.")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "No such jobs.\n"


def test_params_from_options() -> None:
    given = ["query=Why?", "count=3", "flag=true", "tags=[1,2]", "a.b=x=y"]
    wanted = {"base": 1, "query": "Why?", "count": 3, "flag": True, "tags": [1, 2], "a.b": "x=y"}
    assert _params('{"base": 1, "query": "overridden"}', given, Query) == wanted


@pytest.mark.parametrize(
    ("model", "given", "wanted"),
    [
        (Query, "visitorId=12345", "12345"),
        (Query, 'visitorId="12345"', "12345"),
        (Query, "query=true", "true"),
        (Query, "query=[1]", "[1]"),
        (Query, "segmentId=null", None),
        (Query, "segmentId=7", "7"),
        (Query, 'metadata={"a": 1}', {"a": 1}),
        (Query, "metadata=7", 7),  # no text would do either: the refusal shows what was given
        (Query, "nonsense=7", 7),
        (SpeechToText, "speakerCount=2", 2),
        (SpeechToText, "enablePunctuation=true", True),
        (SpeechToText, "contentUri=https://a.example/1.wav", "https://a.example/1.wav"),
        (SpeechToText, "encoding=Wav", "Wav"),
        (Punctuate, 'texts=["a", "1"]', ["a", "1"]),
        (Chat, "externalIdentifier=4711", "4711"),
    ],
)
def test_a_value_has_the_type_of_its_parameter(model: type[BaseModel], given: str, wanted: Any) -> None:
    assert _params(None, [given], model) == {given.partition("=")[0]: wanted}


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_a_narrow_window_shows_the_id_and_the_state_whole(width: int) -> None:
    row = dict(
        zip(
            COLUMNS,
            ("1f0c9f0e-6a52-4f5e-9d57", "ringcentral", "x" * 20, "succeeded", "Success", "9", "1h 05m"),
            strict=True,
        )
    )
    columns = fitting([row], width)
    assert {"job", "state"} <= set(columns)
    assert columns == [name for name in COLUMNS if name in columns]
    assert (columns == list(COLUMNS)) is (width == 200)
    assert len(fitting([row], 80)) >= 5


def test_params_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "params.json"
    file.write_text('{"query": "from a file"}')
    assert _params(f"@{file}", [], Query) == {"query": "from a file"}


@pytest.mark.parametrize(
    ("whole", "single", "why"),
    [
        ("[1]", [], "JSON object"),
        ("{", [], "is not JSON"),
        (None, ["query"], "NAME=VALUE"),
        ("@/nope", [], "cannot read"),
    ],
)
def test_wrong_params_are_told(whole: str | None, single: list[str], why: str) -> None:
    with pytest.raises(typer.BadParameter, match=why):
        _params(whole, single, Query)


def test_each_line_of_a_file_is_a_request_or_says_why_not() -> None:
    good = '{"job_id": "j-1", "provider": "unless", "operation": "query", "params": {"query": "a"}}'
    text = [
        good,
        "",
        "  \n",
        "not json",
        "[]",
        '{"provider": "unless"}',
        '{"provider": "p", "operation": "o", "job_id": 7}',
    ]
    lines = list(_lines(text))
    assert [line.number for line in lines] == [1, 4, 5, 6, 7]
    first = lines[0].request
    assert isinstance(first, tuple)
    assert first == (JobRequest(provider="unless", operation="query", params={"query": "a"}), "j-1")
    reasons = [str(line.request) for line in lines[1:]]
    assert all(isinstance(line.request, InvalidRequest) for line in lines[1:])
    for reason, part in zip(reasons, ["is not JSON", "JSON object", "OPERATION", "job_id"], strict=True):
        assert part in reason


def test_only_changes_are_printed() -> None:
    seen: list[tuple[JobState, str | None]] = []
    board = Lines(lambda job: seen.append((job.state, job.provider_status)))
    for state, status in [("queued", None), ("queued", None), ("waiting", "PENDING"), ("waiting", "DONE")]:
        board.show([job(JobState(state), status=status)])
    assert seen == [(JobState.QUEUED, None), (JobState.WAITING, "PENDING"), (JobState.WAITING, "DONE")]


def test_a_summary_counts_by_state() -> None:
    assert summary([job(JobState.FAILED), job(JobState.WAITING), job(JobState.WAITING)]) == "2 waiting, 1 failed"
    assert summary([]) == ""


def test_the_demo_notices_a_job_that_was_paid_twice_or_never() -> None:
    plan = planned(Path("recording.wav"))
    asked = Counter(job.request.provider for job in plan)
    fair = {name: {"jobs": count, "repeated_submits": 0} for name, count in asked.items()}
    assert all(check.passed for check in paid_once(plan, fair))
    twice = fair | {"unless": {"jobs": asked["unless"] + 1, "repeated_submits": 1}}
    never = {name: totals for name, totals in fair.items() if name != "unless"}
    for wrong in (twice, never):
        assert [check.text.split()[0] for check in paid_once(plan, wrong) if not check.passed] == ["unless"]


def test_the_demo_has_every_provider_and_every_kind_of_end() -> None:
    plan = planned(Path("recording.wav"))
    assert len(plan) >= 30
    assert len({job.id for job in plan}) == len(plan)
    assert {job.request.provider for job in plan} == {"ringcentral", "elevateai", "unless"}
    assert {job.ends for job in plan} == {"succeeded", "failed", "expired", "uncertain"}


def provider_status(**fields: Any) -> GroupStatus:
    quiet = GroupStatus("unless", 0, None, 60, 0, None, 0, None, None, "", None, "", Breaker.CLOSED, None, "", 0)
    return msgspec.structs.replace(quiet, **fields)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"outages": 3}, None),
        ({"suspended_since": 0.0, "suspended_why": "invoice"}, r"paused by a person since 19.* \(invoice\)"),
        ({"suspended_since": 0.0}, r"paused by a person since [^()]+"),
        ({"paused_until": 0.0, "paused_why": "429"}, r"paused until .* \(429\)"),
        (
            {"breaker": Breaker.OPEN, "breaker_until": 0.0, "outages": 10, "breaker_why": "refused"},
            r"cut off until .* after 10 outages \(refused\)",
        ),
        ({"breaker": Breaker.PROBING, "outages": 10}, "down to one request at a time after 10 outages"),
    ],
)
def test_what_holds_a_provider_back_is_told(fields: dict[str, Any], reason: str | None) -> None:
    status = provider_status(**fields)
    assert status.flows is (reason is None)
    reasons = held_back(status)
    assert len(reasons) == (reason is not None)
    assert reason is None or re.fullmatch(reason, reasons[0])


def test_everything_that_holds_a_provider_back_is_told() -> None:
    assert len(held_back(provider_status(suspended_since=0.0, paused_until=0.0, breaker=Breaker.PROBING))) == 3


@pytest.mark.parametrize(
    ("code", "starts", "own_redis", "stops"),
    [
        (Exit.CONFIG, 1, True, True),
        (Exit.CONFIG, 3, False, True),
        (Exit.UNAVAILABLE, 1, False, True),
        (Exit.UNAVAILABLE, 2, False, False),
        (Exit.UNAVAILABLE, 1, True, False),
        (Exit.BUG, 1, False, False),
        (-9, 1, False, False),
    ],
)
def test_up_stops_only_where_a_restart_does_not_help(code: int, starts: int, own_redis: bool, stops: bool) -> None:  # noqa: FBT001 - parameters of the test
    assert needs_a_person(code, starts, own_redis=own_redis) is stops
