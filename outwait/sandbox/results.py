"""Results in the formats of ElevateAI and Unless. Each contains its job's text, so that a test can recognise it."""

import uuid
from typing import Any

from outwait.sandbox.ledger import Job

_FILLER = "and so it goes on, "


def sentence(job: Job) -> str:
    """A sentence with the job's text, made as long as its behaviour orders."""
    return written(job.text, job.behaviour.result_bytes)


def written(text: str, minimum: int = 0) -> str:
    """A sentence with this text, of at least so many bytes."""
    result = f"This is the result of {text}."
    missing = minimum - len(result.encode())
    return result if missing <= 0 else result + (_FILLER * (missing // len(_FILLER) + 1))[:missing]


def elevateai_phrases(job: Job) -> dict[str, Any]:
    """ElevateAI's phrase-by-phrase transcript. Offsets in milliseconds."""
    text = sentence(job)
    segment = {"startTimeOffset": 0, "endTimeOffset": 4200, "phraseIndex": 0, "score": 0.92}
    speech = {"phrases": [text], "phraseSegments": [segment]}
    silence: dict[str, Any] = {"phrases": [], "phraseSegments": []}
    return {"allParticipants": speech, "participantOne": speech, "participantTwo": silence, "redactionSegments": []}


def elevateai_punctuated(job: Job) -> dict[str, Any]:
    """ElevateAI's punctuated transcript."""
    segment = {
        "participant": "participantOne",
        "startTimeOffset": 0,
        "endTimeOffset": 4200,
        "phrase": sentence(job),
        "score": 0.92,
    }
    return {"sentenceSegments": [segment], "redactionSegments": []}


def elevateai_ai(job: Job) -> dict[str, Any]:
    """ElevateAI's CX AI."""
    offsets = {"minScore": 0.1, "minScoreOffset": 0, "maxScore": 0.9, "maxScoreOffset": 4200}
    quartiles = {f"quartile{number}": number / 4 for number in (1, 2, 3, 4)}
    model = {"name": f"sandbox {job.text}", "score": 0.5, **offsets, **quartiles}
    analysis = {
        "enlightenBundles": [{"name": "customerSatisfaction", "models": [model]}],
        "voiceActivitySegments": [{"startTimeOffset": 0, "endTimeOffset": 4200, "result": "speech"}],
    }
    empty: dict[str, Any] = {"enlightenBundles": [], "voiceActivitySegments": []}
    return {"allParticipants": analysis, "participantOne": analysis, "participantTwo": empty}


def unless(job: Job) -> dict[str, Any]:
    """Unless's `chatData`: the answer is the last message of the bot."""
    return {
        "history": [
            _message(job, "user", job.text, job.submitted),
            _message(job, "bot", sentence(job), job.ready),
        ],
        "conversationId": f"async-{job.id}",
        "sessionId": job.facts["sessionId"],
        "conversationName": job.facts.get("conversationName"),
        "toolsetName": None,
        "personalizationId": "sandbox-personalization",
        "metadata": job.facts["metadata"] or {},
    }


def _message(job: Job, sender: str, text: str, at: float) -> dict[str, Any]:
    return {
        "type": "message",
        "sender": sender,
        "message": text,
        "timestamp": int(at * 1000),
        "uuid": str(uuid.uuid5(uuid.UUID(job.id), sender)),
        "hidden": False,
        "metadata": [],
        "languageCode": "en",
        "showMetadata": sender == "bot",
        "canGetFeedback": sender == "bot",
        "feedback": "",
    }
