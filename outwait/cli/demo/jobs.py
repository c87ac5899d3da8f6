"""The demo's jobs: real request bodies for every provider, and how each is planned to end.

A marker in a job's parameters orders how the sandbox treats it (docs/sandbox.md).
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from outwait.worker.model.jobs import JobRequest, JobState


@dataclass(frozen=True)
class Planned:
    """One job of the demo: its id, its request, and the state in which it must end."""

    id: str
    request: JobRequest
    ends: JobState


_SUCCESS = JobState.SUCCEEDED
_NEVER: dict[str, Any] = {"outcome": "never"}
_FAILURE: dict[str, Any] = {"outcome": "failure"}
_BUSY: dict[str, Any] = {"faults": [{"fault": "error", "on": "poll", "status": 503, "times": 2}]}
_LIMITED: dict[str, Any] = {"faults": [{"fault": "rate_limit", "on": "poll", "seconds": 2}]}
_BROKEN: dict[str, Any] = {"faults": [{"fault": "broken_json", "on": "poll"}, {"fault": "drop", "on": "poll"}]}
_LOST: dict[str, Any] = {"faults": [{"fault": "drop_after", "on": "submit"}]}


def planned(recording: Path) -> list[Planned]:
    """All of them. `recording` is an audio file to upload."""
    return [*_ringcentral(), *_elevateai(recording), *_unless()]


def _ringcentral() -> Iterator[Planned]:
    for number in range(1, 5):
        yield _speech(f"call-{number}", duration=number)
    yield _speech("long-call", duration=8)
    yield _speech("busy-provider", duration=2, **_BUSY)
    yield _speech("broken-answers", duration=2, **_BROKEN)
    yield _speech("unreadable-audio", ends=JobState.FAILED, duration=2, outcome="download_failure")
    yield _speech("never-finishes", ends=JobState.EXPIRED, deadline=6, **_NEVER)
    media = {"encoding": "Wav", "languageCode": "en-US"}
    yield _job("who-spoke", "ringcentral", "speaker-diarize", {**media, "contentUri": _media("meeting", duration=3)})
    yield _job(
        "talk-ratio",
        "ringcentral",
        "analyze-interaction",
        {**media, "contentUri": _media("support", duration=4), "insights": ["KeyPhrases", "TalkToListenRatio"]},
    )
    yield _job("summary", "ringcentral", "summarize", _summary("I would like to change my plan.", duration=2))
    failing = _summary("This one the provider cannot summarise.", duration=1, **_FAILURE)
    yield _job("no-summary", "ringcentral", "summarize", failing, ends=JobState.FAILED)
    yield _job("punctuation", "ringcentral", "punctuate", {"texts": [_text("hello how can i help", duration=1)]})


def _speech(job_id: str, *, ends: JobState = _SUCCESS, deadline: float | None = None, **order: Any) -> Planned:
    params = {"contentUri": _media(job_id, **order), "encoding": "Mpeg", "languageCode": "en-US"}
    return _job(job_id, "ringcentral", "speech-to-text", params, ends=ends, deadline=deadline)


def _summary(text: str, **order: Any) -> dict[str, Any]:
    utterance = {"speakerId": "1", "text": _text(text, **order), "start": 0, "end": 4.2}
    return {"summaryType": "AbstractiveShort", "utterances": [utterance]}


def _elevateai(recording: Path) -> Iterator[Planned]:
    audio = {"languageTag": "en-us", "vertical": "default"}
    for number in range(1, 4):
        url = _media(f"recording-{number}", duration=number + 1)
        yield _job(f"recording-{number}", "elevateai", "audio", {**audio, "downloadUri": url, "includeAiResults": True})
    yield _job("with-faults", "elevateai", "audio", {**audio, "downloadUri": _media("faulty", duration=2, **_BUSY)})
    gone = _media("gone", duration=2, outcome="download_failure")
    yield _job("file-is-gone", "elevateai", "audio", {**audio, "downloadUri": gone}, ends=JobState.FAILED)
    for name, order in {"upload": {}, "upload-twice": {"upload_failures": 1}}.items():
        named = _text(name, duration=2, **order)
        yield _job(name, "elevateai", "audio", {**audio, "source": recording.name, "externalIdentifier": named})
    for number in range(1, 4):
        yield _job(f"chat-{number}", "elevateai", "chat", _chat(f"Order {number} has not come.", duration=number))
    yield _job("chat-failing", "elevateai", "chat", _chat("Unreadable.", duration=1, **_FAILURE), ends=JobState.FAILED)
    yield _job("transcript", "elevateai", "transcript", _transcript("Good morning.", duration=2))


def _chat(text: str, **order: Any) -> dict[str, Any]:
    people = [
        {"participant_id": "1", "name": "Ana", "role": "agent"},
        {"participant_id": "2", "name": "Ben", "role": "customer"},
    ]
    moment = "2026-01-31T12:00:00Z"
    messages = [
        {"participant_id": "2", "timestamp": moment, "content": _text(text, **order)},
        {"participant_id": "1", "timestamp": moment, "content": "Let me look."},
    ]
    return {"languageTag": "en-us", "vertical": "default", "chat": {"participants": people, "messages": messages}}


def _transcript(text: str, **order: Any) -> dict[str, Any]:
    segment = {"startTimeOffset": 0, "endTimeOffset": 900, "phraseIndex": 0, "score": 0.9}
    spoken = {"phrases": [_text(text, **order)], "phraseSegments": [segment]}
    silent: dict[str, Any] = {"phrases": [], "phraseSegments": []}
    body = {"allParticipants": spoken, "participantOne": spoken, "participantTwo": silent, "redactionSegments": []}
    return {"languageTag": "en-us", "vertical": "default", "transcript": body}


def _unless() -> Iterator[Planned]:
    questions = ("Which plans are there?", "How do I cancel?", "Where is my invoice?", "Is there a trial?")
    for number, text in enumerate(questions, start=1):
        yield _question(f"question-{number}", text, duration=number * 0.8)
    yield _question("rate-limited", "Do you ship abroad?", duration=1, **_LIMITED)
    yield _question("cannot-answer", "What is the meaning of it all?", ends=JobState.FAILED, duration=1, **_FAILURE)
    yield _question("no-answer", "Is anybody there?", ends=JobState.EXPIRED, deadline=5, **_NEVER)
    yield _question("answer-lost", "Did you get this?", ends=JobState.UNCERTAIN, duration=1, **_LOST)


def _question(
    job_id: str, text: str, *, ends: JobState = _SUCCESS, deadline: float | None = None, **order: Any
) -> Planned:
    params = {"query": text, "sessionId": "demo", "visitorId": "demo", "metadata": {"sandbox": order}}
    return _job(job_id, "unless", "query", params, ends=ends, deadline=deadline)


def _job(
    job_id: str,
    provider: str,
    operation: str,
    params: dict[str, Any],
    *,
    ends: JobState = _SUCCESS,
    deadline: float | None = None,
) -> Planned:
    request = JobRequest(provider=provider, operation=operation, params=params, deadline=deadline)
    return Planned(job_id, request, ends)


def _media(name: str, **order: Any) -> str:
    return f"https://media.example.com/{name}.mp3?sandbox={quote(json.dumps(order))}"


def _text(text: str, **order: Any) -> str:
    return f"{text} sandbox:{json.dumps(order)}"
