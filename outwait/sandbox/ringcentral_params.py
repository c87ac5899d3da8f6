"""The parameters of RingCentral's six operations: what is refused, and what a result depends on.

Where the guide and the definitions of the SDK disagree about what is required, the guide's defaults hold.
"""

from typing import Any

from outwait.sandbox.ledger import TEXT_MAX

_ENCODINGS = ("Mpeg", "Mp4", "Wav", "Webm", "Webp", "Aac", "Avi", "Ogg")
_AUDIO_TYPES = ("CallCenter", "Meeting", "EarningsCalls", "Interview", "PressConference", "Voicemail")
_FLAGS = (
    "enableVoiceActivityDetection",
    "separateSpeakerPerChannel",
    "enablePunctuation",
    "enableSpeakerDiarization",
)

_SUMMARIES = {
    "Extractive": ("Extractive",),
    "AbstractiveShort": ("AbstractiveShort",),
    "AbstractiveLong": ("AbstractiveLong",),
    "AbstractiveAll": ("AbstractiveLong", "AbstractiveShort"),
    "All": ("Extractive", "AbstractiveLong", "AbstractiveShort"),
}
"""The summaries that each `summaryType` orders."""

_INSIGHTS = (
    "KeyPhrases",
    "ExtractiveSummary",
    "Topics",
    "AbstractiveSummaryLong",
    "AbstractiveSummaryShort",
    "Pace",
    "TalkToListenRatio",
    "QuestionsAsked",
)

_SPEAKERS = 2
"""Speakers that are detected if their number is not given."""


class InvalidParameter(Exception):
    """A parameter is missing or has a value that is not allowed."""

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(message)
        self.parameter = parameter


def check(operation: str, data: Any) -> tuple[str, dict[str, Any]]:
    """Check a submit's body. Gives the text by which the job is recognised, and what else its result depends on.

    Raises:
        InvalidParameter: names the parameter.
    """
    if not isinstance(data, dict):
        raise InvalidParameter("body", "The body must be a JSON object")
    given = {name: value for name, value in data.items() if value is not None}  # clients write null for "not set"
    match operation:
        case "punctuate":
            return _texts(given)
        case "summarize":
            return _conversation(given)
        case "speaker-identify":
            return _media(given), {"speaker_ids": _speaker_ids(given)}
        case "speaker-diarize":
            return _media(given), {"speakers": _speakers(given)}
        case "analyze-interaction":
            return _media(given), {"speakers": _speakers(given), "insights": _insights(given)}
        case _:
            flags = {
                "diarized": given.get("enableSpeakerDiarization", False),
                "punctuated": given.get("enablePunctuation", True),
            }
            return _media(given), {"speakers": _speakers(given), **flags}


def _media(data: dict[str, Any]) -> str:
    _one_of(data, "encoding", _ENCODINGS)
    if "audioType" in data:
        _one_of(data, "audioType", _AUDIO_TYPES)
    for flag in _FLAGS:
        if not isinstance(data.get(flag, False), bool):
            raise InvalidParameter(flag, f"Parameter [{flag}] must be true or false")
    if data.get("languageCode", "en-US") != "en-US":
        raise InvalidParameter("languageCode", "Parameter [languageCode] must be en-US")
    uri, content = data.get("contentUri"), data.get("content")
    if (uri is None) == (content is None):
        raise InvalidParameter("contentUri", "Exactly one of [contentUri] and [content] is required")
    if uri is None:
        return f"content of {len(str(content))} characters"
    if not (isinstance(uri, str) and uri.startswith(("http://", "https://"))):
        raise InvalidParameter("contentUri", "Parameter [contentUri] must be an http or https URL")
    return uri


def _speakers(data: dict[str, Any]) -> int:
    """The number of speakers; -1 (documented) and 0 stand for an unknown one."""
    count = data.get("speakerCount", -1)
    if not isinstance(count, int) or isinstance(count, bool) or count < -1:
        raise InvalidParameter("speakerCount", "Parameter [speakerCount] must be a number of speakers, or -1")
    return count if count > 0 else _SPEAKERS


def _speaker_ids(data: dict[str, Any]) -> list[str]:
    ids = data.get("speakerIds") or data.get("enrollmentIds")  # the documents disagree about the name
    if not (isinstance(ids, list) and ids and all(isinstance(one, str) for one in ids)):
        raise InvalidParameter("speakerIds", "Parameter [speakerIds] must be a list of strings")
    return ids


def _insights(data: dict[str, Any]) -> tuple[str, ...]:
    ordered = data.get("insights", ["All"])
    if not isinstance(ordered, list):
        raise InvalidParameter("insights", "Parameter [insights] must be a list of strings")
    for insight in ordered:
        _one_of({"insights": insight}, "insights", ("All", *_INSIGHTS))
    return _INSIGHTS if "All" in ordered else tuple(name for name in _INSIGHTS if name in ordered)


def _texts(data: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    texts = data.get("texts")
    if not (isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts)):
        raise InvalidParameter("texts", "Parameter [texts] must be a list of strings")
    return " ".join(texts), {"texts": [text[:TEXT_MAX] for text in texts]}


def _conversation(data: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    kind = {"summaryType": data.get("summaryType", "Extractive")}
    _one_of(kind, "summaryType", tuple(_SUMMARIES))
    utterances = data.get("utterances")
    if not (isinstance(utterances, list) and utterances and all(_is_utterance(item) for item in utterances)):
        raise InvalidParameter("utterances", "Parameter [utterances] must be a list of objects with [text]")
    times = [item[name] for item in utterances for name in ("start", "end") if item.get(name) is not None]
    facts = {"summaries": _SUMMARIES[kind["summaryType"]], "start": min(times, default=0), "end": max(times, default=0)}
    return " ".join(item["text"] for item in utterances), facts


def _is_utterance(item: Any) -> bool:
    """Whether it has a text; the guide calls speaker and times optional."""
    if not (isinstance(item, dict) and isinstance(item.get("text"), str)):
        return False
    return isinstance(item.get("speakerId") or "", str) and all(
        isinstance(item.get(name) or 0, int | float) for name in ("start", "end")
    )


def _one_of(data: dict[str, Any], name: str, allowed: tuple[str, ...]) -> None:
    if data.get(name) not in allowed:
        raise InvalidParameter(name, f"Parameter [{name}] must be one of {', '.join(allowed)}")
