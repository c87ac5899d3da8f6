"""Results in the providers' formats. Each contains its job's text, so that a test can recognise it."""

from typing import Any

from outwait.sandbox.ledger import Job

_FILLER = "and so it goes on, "


def sentence(job: Job) -> str:
    """A sentence with the job's text, made as long as its behaviour orders."""
    text = f"This is the result of {job.text}."
    missing = job.behaviour.result_bytes - len(text.encode())
    return text if missing <= 0 else text + (_FILLER * (missing // len(_FILLER) + 1))[:missing]


def ringcentral(job: Job) -> dict[str, Any]:
    """The `response` of a RingCentral job."""
    text = sentence(job)
    match job.operation:
        case "punctuate":
            return {"texts": [text]}
        case "summarize":
            value = {"value": text, "start": 0.0, "end": 4.2, "confidence": 0.91}
            return {"summaries": [{"name": "AbstractiveShort", "values": [value]}]}
        case "speaker-diarize":
            return {"speakerCount": 2, "utterances": [_utterance("0", 0), _utterance("1", 1)]}
        case "speaker-identify":
            known = {**_utterance("sandbox_speaker", 0), "confidence": 35.4}
            return {"utterances": [known, _utterance("UserNotIdentified", 1)]}
        case "analyze-interaction":
            return _interaction(text)
        case _:
            words = [_word(word, at) for at, word in enumerate(text.split(maxsplit=50)[:50])]
            return {"transcript": text, "confidence": 0.93, "words": words}


def _word(word: str, at: int) -> dict[str, Any]:
    return {"word": word, "start": round(at * 0.4, 2), "end": round(at * 0.4 + 0.35, 2), "confidence": 0.93}


def _utterance(speaker: str, at: int) -> dict[str, Any]:
    return {"speakerId": speaker, "start": at * 2.1, "end": at * 2.1 + 2, "confidence": 0.87}


def _interaction(text: str) -> dict[str, Any]:
    insight = {"name": "KeyPhrases", "value": "result", "start": 0.0, "end": 2.0, "confidence": 0.8}
    pace = {"speakerId": "0", "value": "120.0"}
    summary = {"value": text, "start": 0.0, "end": 4.2, "confidence": 0.9}
    return {
        "utteranceInsights": [{**_utterance("0", 0), "text": text, "insights": [insight]}],
        "speakerInsights": {"speakerCount": 1, "insights": [{"name": "Pace", "values": [pace]}]},
        "conversationalInsights": [{"name": "AbstractiveSummaryShort", "values": [summary]}],
    }


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
    facts = {name: value for name, value in job.facts.items() if name != "metadata"}
    return {
        "history": [
            _message(job, "user", job.text, job.submitted),
            _message(job, "bot", sentence(job), job.ready),
        ],
        "conversationId": f"async-{job.id}",
        **facts,
        "metadata": job.facts["metadata"] or {},
    }


def _message(job: Job, sender: str, text: str, at: float) -> dict[str, Any]:
    return {
        "type": "message",
        "sender": sender,
        "message": text,
        "timestamp": int(at * 1000),
        "uuid": f"{job.id}-{sender}",
        "hidden": False,
        "metadata": [],
        "languageCode": "en",
    }
