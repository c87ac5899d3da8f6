"""Makes hostile messages, requests and answers out of valid ones: always the same of one seed.

What is made is mostly valid, or nobody would read further than its first byte: one to three things of it are wrong.
"""

import base64
import bz2
import json
import lzma
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from random import Random
from typing import Any, NamedTuple
from urllib.parse import quote

SEED = int(os.environ.get("OUTWAIT_FUZZ_SEED", "10"))
COUNT = int(os.environ.get("OUTWAIT_FUZZ_COUNT", "2000"))
"""Inputs of each kind. `make chaos` makes more, of another seed."""

DEEP = 20_000
"""Levels of nested JSON: more than any reader's stack."""

NUMBERS = str.split("NaN -Infinity 1e400 -0 1e-999 0.1e99999999 007 'x' undefined tru")
LITERALS = (*NUMBERS, "9" * 5000, "// x\n1", r'"\ud800"', r'"\u0000"')
LITERALS += ("[" * DEEP + "]" * DEEP, '{"a":' * DEEP + "1" + "}" * DEEP, "[" * DEEP)
"""Put into a text in place of a value: Python's writer would not write them."""

VALUES: tuple[Any, ...] = (None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 10**30, 0.5, 1e308, 5e-324, -0.0)
VALUES += ("", " ", "\0", "x", "é" * 300, "\u202e\u2066", "\u2028", "a" * 70_000, "../../etc", "{{x}}", "%00", "\x85")
VALUES += ([], [None], [[]], {}, {"": None}, {"a": {"b": []}}, ["x"] * 3000, {str(key): key for key in range(3000)})
VALUES += ("2026-11-22T00:00:00Z", "9999-12-31T23:59:59+23:59", "0001-01-01T00:00:00-23:59", "infinity", "1e999", "٣")

TEXTS = (*str.split("x utf-7 utf-16 idna hex rot13 bz2 undefined unicode_escape é"), "", "\t", "a" * 9000)
TYPES = ("application/json", "text/html", "application/x-python-serialize", "application/yaml", "application/data")
METHODS = (*str.split("GET POST PUT DELETE PATCH HEAD OPTIONS TRACE CONNECT get PRI"), "X" * 300)
SECONDS = (*str.split("0 1 -1 0.5 nan inf 999999999 1e9 soon ٣ 1,2"), "", "Fri, 31 Dec 9999 23:59:59 GMT")

STATUSES = (*[200] * 8, 100, 101, 103, 201, 202, 204, 205, 206, 301, 302, 304, *range(400, 432), 451, 499, 999)
STATUSES += (429, 500, 502, 503, 504, 511, 600)

BOMB = zlib.compress(bytes(50_000_000))
"""Inflates to more than any answer may have."""

_HOLE = "@hole@"


class Answer(NamedTuple):
    """An HTTP answer as bytes, and the status that stands in it."""

    status: int
    data: bytes


class Fuzzer:
    """Inputs of one kind.

    Args:
        kind: what they are; two kinds of one seed differ.
        seed: with which they can be made again.
    """

    def __init__(self, kind: str, seed: int = SEED) -> None:
        self.rng = Random(f"{seed}/{kind}")

    def some(self, choices: Sequence[Any]) -> Any:
        return self.rng.choice(choices)

    def often(self, share: float) -> bool:
        return self.rng.random() < share

    def document(self, valid: Any) -> bytes:
        """JSON of which some values are not what they should be."""
        document, literals = deepcopy(valid), []
        for _ in range(self.some((1, 1, 1, 2, 3))):
            holder, name = self._place(document)
            if holder is None:
                break
            match self.rng.randrange(8):
                case 0 if isinstance(holder, dict):
                    del holder[name]
                case 1 if isinstance(holder, dict):
                    holder[self.some((*TEXTS, "__proto__", "_id"))] = holder[name]
                case 2:
                    literals.append(self.some(LITERALS))
                    holder[name] = _HOLE
                case _:
                    holder[name] = deepcopy(self.some(VALUES))
        text = json.dumps(document, ensure_ascii=self.often(0.5))
        for literal in literals:
            text = text.replace(f'"{_HOLE}"', literal, 1)
        if self.often(0.1) and text.startswith("{"):
            text = text[:-1] + "," + text[1:]  # each name twice
        data = text.encode("utf-8", "surrogatepass")
        return self.damaged(data) if self.often(0.1) else self._in_another_code(data) if self.often(0.05) else data

    def damaged(self, data: bytes) -> bytes:
        """Bytes of which a few are lost, changed or too many."""
        at = self.rng.randrange(len(data) + 1)
        match self.rng.randrange(4):
            case 0:
                return data[:at]
            case 1:
                return data[:at] + self.rng.randbytes(self.rng.randint(1, 8)) + data[at:]
            case 2:
                return data[:at] + bytes([self.rng.randrange(256)]) + data[at + 1 :]
            case _:
                return data[:at] + data[at // 2 :]

    def message(self, job_id: str, request: Mapping[str, Any]) -> bytes:
        """A message as Celery's producers put it into Redis."""
        content = [[], request, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]
        match self.rng.randrange(8):
            case 0:  # as protocol 1 writes it
                times = {name: self.some(VALUES) for name in ("eta", "expires") if self.often(0.3)}
                body = self.document({"task": "tasks.submit", "id": job_id, "args": [], "kwargs": request, **times})
            case 1:
                body = self.document(content)
            case 2:
                body = self.damaged(json.dumps(content).encode())
            case _:
                body = b"[[], " + self.document(request) + b", {}]"
        headers: dict[str, Any] = {"task": "tasks.submit", "id": job_id}
        body, compression = self._packed(body)
        if compression is not None:
            headers["compression"] = compression
        for name in ("id", "task", "eta", "expires", "traceparent", "lang", "retries", "ignore_result", "stamps"):
            if self.often(0.05):
                headers[name] = self.some(VALUES)
        envelope = {
            "body": base64.b64encode(body).decode(),
            "content-type": self.some(TYPES) if self.often(0.1) else "application/json",
            "content-encoding": self.some(TEXTS) if self.often(0.1) else "utf-8",
            "headers": headers,
            "properties": {"delivery_tag": job_id, "body_encoding": "base64", "correlation_id": job_id},
        }
        return self.document(envelope) if self.often(0.2) else json.dumps(envelope).encode()

    def request(self, valid: "Request") -> bytes:
        """An HTTP/1.1 request; the server closes the connection after it."""
        method, path, headers, body = valid
        method = self.some(METHODS) if self.often(0.08) else method
        fields = {"host": "127.0.0.1", "connection": "close", "content-type": "application/json", **headers}
        data = b"" if body is None else self.document(body) if self.often(0.7) else json.dumps(body).encode()
        if self.often(0.1):
            path = quote(self.damaged(path.encode()), safe="/?&=%")
        fields["content-length"] = str(len(data))
        if self.often(0.05):
            fields["content-length"] = self.some(("-1", "1", "99", "x", "9" * 30, "0x10", "+3", "0, 0"))
        for name in (
            "authorization",
            "content-type",
            "content-encoding",
            "idempotency-key",
            "transfer-encoding",
            "host",
        ):
            if self.often(0.04):
                fields[name] = self.some((*TEXTS, *TYPES, "gzip", "chunked", "Bearer", "Bearer ow_x_y", "Basic eA=="))
        for name in (
            "expect",
            "range",
            "traceparent",
            "last-event-id",
            "x-forwarded-for",
            "origin",
            "upgrade",
            "cookie",
        ):
            if self.often(0.04):
                fields[name] = self.some(
                    (*TEXTS, "100-continue", "bytes=0-", "00-0-0-0", "1" * 400, "null", "websocket")
                )
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        raw = f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("utf-8", "surrogatepass")
        return (self.damaged(raw) if self.often(0.05) else raw) + data

    def answer(self, valid: Any) -> Answer:
        """A provider's answer to a request; the connection is closed after it."""
        status = self.some(STATUSES) if self.often(0.5) else 200
        data = self.document(valid) if self.often(0.8) else json.dumps(valid).encode()
        fields = {"content-type": "application/json", "content-length": str(len(data))}
        match self.rng.randrange(12):
            case 0:
                fields["content-type"] = f"{self.some(TYPES)}; charset={self.some(TEXTS)}"
            case 1:
                fields["content-length"] = str(len(data) + self.some((-3, 5, 10**12)))
            case 2:
                del fields["content-length"]
                fields["transfer-encoding"] = self.some(("chunked", "gzip, chunked", "x"))
                data = self.some((b"5\r\nhello\r\n0\r\n\r\n", b"ffffffffffff\r\nx", b"-1\r\n\r\n", data))
            case 3:
                fields["content-encoding"] = self.some(("gzip", "deflate", "br", "zstd", "x", "gzip, gzip, gzip"))
                data = self.some((data, zlib.compress(data), BOMB))
                fields["content-length"] = str(len(data))
            case 4:
                fields[self.some(TEXTS).replace("\t", "x") or "x"] = self.some(TEXTS)
        for name in ("retry-after", "x-rate-limit-window", "x-ratelimit-reset", "date", "location", "set-cookie"):
            if self.often(0.1):
                fields[name] = self.some(SECONDS)
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        raw = f"HTTP/1.1 {status} {self.some(('OK', '', 'é'))}\r\n{head}\r\n".encode()
        whole = (self.damaged(raw) if self.often(0.05) else raw) + data
        return Answer(status, whole[: self.rng.randrange(len(whole))] if self.often(0.05) else whole)

    def _place(self, document: Any) -> tuple[Any, Any]:
        """Any value in it: what holds it, and its name or number there."""
        places = list(_places(document))
        return self.some(places) if places else (None, None)

    def _in_another_code(self, data: bytes) -> bytes:
        text = data.decode("utf-8", "replace")
        return text.encode(self.some(("utf-8-sig", "utf-16", "utf-32-be", "utf-7", "cp037")), "replace")

    def _packed(self, body: bytes) -> tuple[bytes, Any]:
        """A compression, which is perhaps not the one that is named."""
        if self.often(0.85):
            return body, None
        packers = {"application/x-gzip": zlib.compress, "application/x-bz2": bz2.compress}
        packers["application/x-lzma"] = lambda data: lzma.compress(data, preset=0)
        name = self.some(tuple(packers))
        packed = packers[name](body)
        match self.rng.randrange(4):
            case 0:
                return self.damaged(packed), name
            case 1:
                return packed, self.some((*TEXTS, *VALUES[:15], [name], "application/zstd", *packers))
            case _:
                return packed, name


class Request(NamedTuple):
    """A valid request."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(document, dict | list):
        for name in list(document) if isinstance(document, dict) else range(len(document)):
            yield document, name
            yield from _places(document[name])


class Api:
    """Valid requests of an OpenAPI document.

    Args:
        document: as a web process serves it.
        key: of the caller.
        jobs: ids that may stand in a path.
        body: of `POST /v1/jobs`.
    """

    def __init__(self, document: Mapping[str, Any], key: str, jobs: Sequence[str], body: Mapping[str, Any]) -> None:
        self._headers, self._jobs = {"authorization": f"Bearer {key}"}, jobs
        self._bodies: dict[str, Sequence[Any]] = {
            "/v1/jobs": (body, {"jobs": [body, body]}),
            "/v1/jobs/{job_id}/resolve": ({"choice": "fail"}, {"choice": "submitted_as", "external_id": "x"}),
            "/v1/jobs/{job_id}/replay": ({}, {"target": "crm"}),
            "/v1/dead/replay": ({}, {"target": "crm", "provider": "unless", "since": 1.0}),
            "/v1/providers/{provider}/pause": ({"reason": "x"},),
        }
        self._operations = [
            (method.upper(), path, operation.get("parameters", []))
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
        ]
        self._making = [operation for operation in self._operations if operation[:2] == ("POST", "/v1/jobs")]

    def request(self, fuzzer: Fuzzer) -> Request:
        """One of any operation; every third makes jobs."""
        operations = self._operations if fuzzer.often(0.67) else self._making
        method, path, parameters = fuzzer.some(operations)
        values = {"job_id": fuzzer.some(self._jobs), "provider": "unless", "wait": "0", "state": "queued", "limit": "5"}
        body = fuzzer.some(self._bodies.get(path, (None,))) if method == "POST" else None
        for name in (each["name"] for each in parameters if each["in"] == "path"):
            value = fuzzer.some(_SHORT) if fuzzer.often(0.2) else values.get(name, "unknown")
            path = path.replace(f"{{{name}}}", quote(value, safe=""))
        query = []
        for name in (each["name"] for each in parameters if each["in"] == "query" and fuzzer.often(0.5)):
            value = fuzzer.some(_SHORT) if fuzzer.often(0.6) else values.get(name, "x")
            query.append(f"{name}={quote(value, safe='')}")
        return Request(method, path + ("?" + "&".join(query) if query else ""), self._headers, body)


_SHORT = tuple(str(value)[:500].encode("utf-8", "replace").decode() for value in (*VALUES, *TEXTS, *SECONDS))
