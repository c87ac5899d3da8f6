"""The `response` of RingCentral's jobs, in the forms of the guide's tables and samples and of its SDK's definitions."""

from itertools import pairwise
from typing import Any

from outwait.sandbox.ledger import Job
from outwait.sandbox.results import sentence, written

_WORDS_MAX = 50
"""Words of a transcript that are listed one by one."""

_CONVERSATIONAL = ("KeyPhrases", "ExtractiveSummary", "Topics", "AbstractiveSummaryLong", "AbstractiveSummaryShort")
"""Insights into the whole conversation; the others are about each speaker."""

_Part = dict[str, Any]


def result(job: Job) -> _Part:
    """The `response` of a job that succeeded."""
    match job.operation:
        case "punctuate":
            return {"texts": _punctuated(job)}
        case "summarize":
            return {"summaries": [{"name": name, "values": [_summary(job)]} for name in job.facts["summaries"]]}
        case "speaker-diarize":
            speakers = job.facts["speakers"]
            return {"speakerCount": speakers, "utterances": [_turn(str(at), at) for at in range(speakers)]}
        case "speaker-identify":
            known = [{**_turn(name, at), "confidence": 35.4} for at, name in enumerate(job.facts["speaker_ids"])]
            return {"utterances": [*known, _turn("UserNotIdentified", len(known))]}
        case "analyze-interaction":
            return _interaction(job)
        case _:
            return _transcript(job)


def _punctuated(job: Job) -> list[str]:
    first, *others = job.facts["texts"]
    return [written(first, job.behaviour.result_bytes), *(written(text) for text in others)]


def _summary(job: Job) -> _Part:
    start, end = float(job.facts["start"]), float(job.facts["end"])
    return {"value": sentence(job), "start": start, "end": end, "confidence": 0.91}


def _transcript(job: Job) -> _Part:
    """The words; with diarization also who said them."""
    text = sentence(job)
    if not job.facts["punctuated"]:
        text = text.lower().replace(",", "").removesuffix(".")
    answer = {"transcript": text, "confidence": 0.93}
    if not job.facts["diarized"]:
        return {**answer, "words": _words(text)}
    utterances = _utterances(text, job.facts["speakers"])
    words = [word for utterance in utterances for word in utterance["wordTimings"]]
    return {**answer, "speakerCount": job.facts["speakers"], "words": words, "utterances": utterances}


def _words(text: str) -> list[_Part]:
    return [
        {"word": word, "start": round(at * 0.4, 2), "end": round(at * 0.4 + 0.35, 2), "confidence": 0.93}
        for at, word in enumerate(text.split(maxsplit=_WORDS_MAX)[:_WORDS_MAX])
    ]


def _utterances(text: str, speakers: int) -> list[_Part]:
    """One utterance for each speaker, as long as there are words."""
    words = _words(text)
    turns = min(speakers, len(words))
    bounds = pairwise(len(words) * turn // turns for turn in range(turns + 1))
    return [_utterance(str(speaker), words[begin:end]) for speaker, (begin, end) in enumerate(bounds)]


def _utterance(speaker: str, words: list[_Part]) -> _Part:
    return {
        "speakerId": speaker,
        "text": " ".join(word["word"] for word in words),
        "start": words[0]["start"],
        "end": words[-1]["end"],
        "confidence": 0.87,
        "wordTimings": [{**word, "speakerId": speaker} for word in words],
    }


def _turn(speaker: str, at: int) -> _Part:
    return {"speakerId": speaker, "start": at * 2.1, "end": at * 2.1 + 2, "confidence": 0.87}


def _interaction(job: Job) -> _Part:
    speakers, ordered = job.facts["speakers"], job.facts["insights"]
    utterances = _utterances(sentence(job), speakers)
    for utterance in utterances:
        del utterance["wordTimings"]  # in no table and no sample of the guide
    by_speaker = [name for name in ordered if name not in _CONVERSATIONAL]
    return {
        "utteranceInsights": utterances,
        "speakerInsights": {
            "speakerCount": speakers,
            "insights": [{"name": name, "values": _of_speakers(name, speakers)} for name in by_speaker],
        },
        "conversationalInsights": [
            {"name": name, "values": [_of_conversation(name, sentence(job))]}
            for name in ordered
            if name in _CONVERSATIONAL
        ],
    }


def _of_speakers(name: str, speakers: int) -> list[_Part]:
    share = 100 // speakers
    question = {"text": "What is the result?", "start": 0.0, "end": 2.0}
    values: dict[str, _Part] = {
        "Pace": {"value": "medium", "wpm": 152.9},
        "TalkToListenRatio": {"value": f"{share}:{100 - share}"},
        "QuestionsAsked": {"value": 1, "questions": [question]},
    }
    return [{"speakerId": str(speaker), **values[name]} for speaker in range(speakers)]


def _of_conversation(name: str, text: str) -> _Part:
    timed = {"start": 0.0, "end": 4.2, "confidence": 0.9}
    match name:
        case "KeyPhrases" | "Topics":
            return {**timed, "value": "result"}
        case "ExtractiveSummary":
            return {**timed, "sentence": text, "value": text}  # `sentence` in the guide, `value` in the definitions
        case "AbstractiveSummaryLong":
            return {**timed, "value": text, "groupId": "0"}
        case _:
            return {**timed, "value": text}
