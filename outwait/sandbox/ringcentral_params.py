"""The parameters of RingCentral's six operations, and the text by which a job is recognised."""

from typing import Any

_ENCODINGS = ("Mpeg", "Mp4", "Wav", "Webm", "Webp", "Aac", "Avi", "Ogg")
_SUMMARIES = ("Extractive", "AbstractiveShort", "AbstractiveLong", "AbstractiveAll", "All")
_INSIGHTS = (
    "All",
    "KeyPhrases",
    "AbstractiveSummaryLong",
    "AbstractiveSummaryShort",
    "ExtractiveSummary",
    "Topics",
    "TalkToListenRatio",
    "Pace",
    "QuestionsAsked",
)


class InvalidParameter(Exception):
    """A parameter is missing or has a value that is not allowed."""

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(message)
        self.parameter = parameter


def check(operation: str, data: Any) -> str:
    """Check a submit's body. Gives the text that the result is derived from.

    Raises:
        InvalidParameter: names the parameter.
    """
    if not isinstance(data, dict):
        raise InvalidParameter("body", "The body must be a JSON object")
    match operation:
        case "punctuate":
            return _texts(data)
        case "summarize":
            _one_of(data, "summaryType", _SUMMARIES)
            return _utterances(data)
        case "speaker-identify":
            if not (data.get("speakerIds") or data.get("enrollmentIds")):  # the documents disagree about the name
                raise InvalidParameter("speakerIds", "Parameter [speakerIds] is required")
        case "analyze-interaction":
            for insight in data.get("insights", ["All"]):
                _one_of({"insights": insight}, "insights", _INSIGHTS)
        case _:
            pass
    return _media(data)


def _media(data: dict[str, Any]) -> str:
    _one_of(data, "encoding", _ENCODINGS)
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


def _texts(data: dict[str, Any]) -> str:
    texts = data.get("texts")
    if not (isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts)):
        raise InvalidParameter("texts", "Parameter [texts] must be a list of strings")
    return " ".join(texts)


def _utterances(data: dict[str, Any]) -> str:
    utterances = data.get("utterances")
    if not (isinstance(utterances, list) and utterances and all(isinstance(item, dict) for item in utterances)):
        raise InvalidParameter("utterances", "Parameter [utterances] must be a list of objects")
    return " ".join(str(item.get("text", "")) for item in utterances)


def _one_of(data: dict[str, Any], name: str, allowed: tuple[str, ...]) -> None:
    if data.get(name) not in allowed:
        raise InvalidParameter(name, f"Parameter [{name}] must be one of {', '.join(allowed)}")
