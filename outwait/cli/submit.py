"""`outwait submit`: one job from options, or all jobs of a JSON Lines file."""

import json
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TextIO

import typer
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from outwait.cli.output import print_json, print_line, say
from outwait.cli.session import Json, Session, current
from outwait.client.store import StoreClient
from outwait.config.errors import explain
from outwait.config.exits import Exit
from outwait.worker.model.errors import InvalidRequest, OutwaitError, RequestError
from outwait.worker.model.jobs import NORMAL, JobRequest
from outwait.worker.providers.registry import build

BATCH = 500
"""Lines that are sent to the store at once."""


def submit(
    context: typer.Context,
    provider: Annotated[
        str,
        typer.Argument(metavar="PROVIDER|FILE", help="A provider; or a JSON Lines file (`-` is standard input)."),
    ],
    operation: Annotated[str | None, typer.Argument(help="One of the provider's operations.")] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            "--param",
            "-p",
            metavar="NAME=VALUE",
            help="A parameter. VALUE is JSON, or text where the parameter is a text or it is not JSON.",
        ),
    ] = None,
    params: Annotated[
        str | None, typer.Option(help="All parameters as a JSON object, or @FILE to read them from a file.")
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option("--target", "-t", help="A handler to deliver to; may be repeated.")
    ] = None,
    job_id: Annotated[str | None, typer.Option("--id", help="The job's id; by default a new UUID.")] = None,
    key: Annotated[
        str | None, typer.Option(help="Idempotency key: a second request with the same key creates no second job.")
    ] = None,
    deadline: Annotated[float | None, typer.Option(help="Seconds from when it is due until it expires.")] = None,
    countdown: Annotated[float | None, typer.Option(help="Seconds before which the job is not submitted.")] = None,
    tenant: Annotated[str | None, typer.Option(help="The customer that the job belongs to.")] = None,
    priority: Annotated[int, typer.Option(help="0 to 9; of a tenant's jobs those with 9 go first.")] = NORMAL,
    metadata: Annotated[str | None, typer.Option(help="A JSON object that is passed to every handler.")] = None,
    as_json: Json = False,
) -> None:
    """Submit one job, or every line of a JSON Lines file.

    One job:   outwait submit unless query -p query="Which plans are there?" -p sessionId=s1 -p visitorId=v1

    A file:    outwait submit jobs.jsonl   (each line has provider, operation, params, ..., and perhaps job_id)
    """
    session = current(context)
    if operation is None:
        _submit_lines(session, provider, as_json=as_json)
        return
    request = _request(
        {
            "provider": provider,
            "operation": operation,
            "params": _params(params, param or [], _model(session, provider, operation)),
            "targets": target or [],
            "idempotency_key": key,
            "deadline": deadline,
            "countdown": countdown,
            "tenant": tenant,
            "priority": priority,
            "metadata": _object(metadata or "{}", "--metadata"),
        }
    )
    _submit_one(session, request, job_id, as_json=as_json)


def _submit_one(session: Session, request: JobRequest, job_id: str | None, *, as_json: bool) -> None:
    enqueued = session.ask(lambda client: client.enqueue(request, job_id=job_id))
    if as_json:
        print_json({"job_id": enqueued.job_id, "created": enqueued.created})
        return
    sys.stdout.write(f"{enqueued.job_id}\n")
    if not enqueued.created:
        say("This job existed already; no new job was created.")


def _model(session: Session, provider: str, operation: str) -> type[BaseModel]:
    """The model of the operation's parameters. Raises InvalidRequest if there is no such operation."""
    return build(session.settings().providers).operation(provider, operation).params


def _params(whole: str | None, single: list[str], model: type[BaseModel]) -> dict[str, Any]:
    if whole and whole.startswith("@"):
        whole = _read(whole[1:])
    params = _object(whole or "{}", "--params")
    for pair in single:
        name, equals, value = pair.partition("=")
        if not equals:
            raise typer.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint="--param")
        params[name] = _value(value, model.model_fields.get(name))
    return params


def _value(text: str, field: FieldInfo | None) -> Any:
    """The value as JSON, if it is; as text, if only a text is good for this parameter (`visitorId=12345`)."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return text if field and not _valid(field, value) and _valid(field, text) else value


def _valid(field: FieldInfo, value: Any) -> bool:
    kind: Any = field.annotation
    try:
        TypeAdapter(Annotated[kind, field]).validate_python(value, strict=True)
    except ValidationError:
        return False
    return True


def _object(text: str, option: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"is not JSON: {error}", param_hint=option) from error
    if not isinstance(value, dict):
        raise typer.BadParameter("must be a JSON object", param_hint=option)
    return value


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError as error:
        raise typer.BadParameter(f"cannot read {path}: {error.strerror}", param_hint="--params") from error


def _request(fields: dict[str, Any]) -> JobRequest:
    try:
        return JobRequest.model_validate(fields)
    except ValidationError as error:
        raise InvalidRequest(explain(error, prefix="")) from error


class _Line(NamedTuple):
    """One line of a file: its number, its text, and the request in it, or the error if it holds none."""

    number: int
    text: str
    request: tuple[JobRequest, str | None] | RequestError


def _submit_lines(session: Session, path: str, *, as_json: bool) -> None:
    with _opened(path) as file:
        created, known, refused = session.ask(lambda client: _all(client, _lines(file), as_json=as_json))
    say(f"{created} created, {known} existed already, {refused} refused")
    if refused:
        raise typer.Exit(Exit.REFUSED)


def _opened(path: str) -> TextIO:
    if path == "-":
        return sys.stdin
    try:
        return Path(path).open()
    except OSError as error:
        raise typer.BadParameter(
            f"no operation is given, and {path} cannot be read as a file ({error.strerror})",
            param_hint="PROVIDER|FILE",
        ) from error


def _lines(file: Iterable[str]) -> Iterator[_Line]:
    for number, text in enumerate(file, start=1):
        if text.strip():
            yield _Line(number, text, _line_request(text))


def _line_request(text: str) -> tuple[JobRequest, str | None] | RequestError:
    try:
        fields = json.loads(text)
        if not isinstance(fields, dict):
            return InvalidRequest("the line must be a JSON object")
        job_id = fields.pop("job_id", None)
        if job_id is not None and not isinstance(job_id, str):
            return InvalidRequest("job_id: must be a string")
        return _request(fields), job_id
    except ValueError as error:
        return InvalidRequest(f"the line is not JSON: {error}")
    except RequestError as error:
        return error


async def _all(client: StoreClient, lines: Iterator[_Line], *, as_json: bool) -> tuple[int, int, int]:
    created = known = refused = 0
    while batch := list(islice(lines, BATCH)):
        valid = [line.request for line in batch if not isinstance(line.request, RequestError)]
        answers = iter(await client.enqueue_many(valid) if valid else [])
        for line in batch:
            answer = line.request if isinstance(line.request, RequestError) else next(answers)
            if isinstance(answer, OutwaitError):
                refused += 1
                _print_refused(line, answer, as_json=as_json)
                continue
            created, known = created + answer.created, known + (not answer.created)
            if as_json:
                print_line({"line": line.number, "job_id": answer.job_id, "created": answer.created})
            else:
                sys.stdout.write(answer.job_id + "\n")
    return created, known, refused


def _print_refused(line: _Line, error: OutwaitError, *, as_json: bool) -> None:
    if as_json:
        print_line({"line": line.number, "error": error.code, "message": str(error)})
    else:
        say(f"line {line.number}: {error}")
