"""Parameters of RingCentral's operations, spelt as its SDK definitions spell them."""

from typing import Annotated, Literal

from pydantic import Field

from outwait.worker.providers.contract import Params

Encoding = Literal["Mpeg", "Mp4", "Wav", "Webm", "Webp", "Aac", "Avi", "Ogg"]
AudioType = Literal["CallCenter", "Meeting", "EarningsCalls", "Interview", "PressConference", "Voicemail"]
SummaryType = Literal["Extractive", "AbstractiveShort", "AbstractiveLong", "AbstractiveAll", "All"]
Insight = Literal[
    "All",
    "KeyPhrases",
    "AbstractiveSummaryLong",
    "AbstractiveSummaryShort",
    "ExtractiveSummary",
    "Topics",
    "TalkToListenRatio",
    "Pace",
    "QuestionsAsked",
]
SpeakerId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")]


class Media(Params):
    """What all audio operations take."""

    # Fetched by RingCentral without headers of ours; its own recordings need ?access_token=… in it.
    contentUri: str = Field(pattern=r"^https?://", description="URL of the audio or video.")
    encoding: Encoding
    languageCode: str = Field(default="en-US", min_length=1)  # the definitions require it, the guide does not
    source: str | None = None
    audioType: AudioType | None = None
    enableVoiceActivityDetection: bool | None = None


class Diarize(Media):
    """Who speaks when."""

    separateSpeakerPerChannel: bool | None = None
    speakerCount: int | None = Field(default=None, ge=-1, description="-1: unknown.")


class SpeechContext(Params):
    """Phrases that the recogniser should expect."""

    phrases: list[str]


class SpeechToText(Diarize):
    """The spoken words."""

    enablePunctuation: bool | None = None
    enableSpeakerDiarization: bool | None = None
    speechContexts: list[SpeechContext] | None = None


class Identify(Media):
    """Which of the enrolled speakers speaks when."""

    speakerIds: list[SpeakerId] = Field(min_length=1)  # older samples call them enrollmentIds


class Analyze(Diarize):
    """Summaries, topics and figures of a conversation."""

    speechContexts: list[SpeechContext] | None = None
    insights: list[Insight] | None = None
    sampleRate: int | None = Field(default=None, ge=1, description="Hertz; named by the guide only.")


class Punctuate(Params):
    """Texts to punctuate."""

    texts: list[str] = Field(min_length=1)


class Utterance(Params):
    """What one speaker said. Times in seconds. The guide calls all but the text optional, the definitions none."""

    text: str
    speakerId: str | None = None
    start: float | None = None
    end: float | None = None


class Summarize(Params):
    """A conversation to summarise."""

    summaryType: SummaryType = "Extractive"  # the guide's default, always sent: the definitions require it
    utterances: list[Utterance] = Field(min_length=1)
