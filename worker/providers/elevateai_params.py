"""Parameters of ElevateAI's declarations, named as in its reference."""

from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, JsonValue, model_validator

from outwait.worker.providers.contract import Params
from outwait.worker.providers.files import file_name


class Declaration(Params):
    """Parameters of all kinds of interaction."""

    languageTag: str = Field(min_length=2, max_length=20, description="en-us, en, es-419; audio also pt-br, ja.")
    vertical: str | None = Field(default="default", min_length=1, description="null: left out, for the model echo.")
    includeAiResults: bool = False
    externalIdentifier: str | None = Field(default=None, min_length=1, description="Yours; the job's id if not given.")
    metadata: dict[str, JsonValue] | None = Field(default=None, description="Only for tokens with Explore enabled.")


class Audio(Declaration):
    """A recording, at a URL that ElevateAI downloads it from, or uploaded by a worker."""

    downloadUri: str | None = Field(default=None, pattern=r"^(https?|sftp)://")
    source: str | None = Field(
        default=None, min_length=1, description="Ours: URL or path of a file that a worker uploads."
    )
    model: str | None = Field(default=None, min_length=1)
    audioTranscriptionMode: Literal["highAccuracy", "highSpeed"] | None = None  # ignored by the vendor since 2024
    originalFilename: str | None = Field(default=None, min_length=1, max_length=255)

    @property
    def file_name(self) -> str:
        """The name of an uploaded file; its extension shows the provider the format."""
        return self.originalFilename or file_name(self.source or "")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.downloadUri is None) == (self.source is None):
            raise ValueError("exactly one of downloadUri and source must be given")
        if self.source is not None and "." not in self.file_name.strip("."):
            raise ValueError("source has no file extension, which shows the format: add originalFilename with one")
        return self


class _Open(Params):
    """A part of a text that may have more fields than the reference shows."""

    model_config = ConfigDict(extra="allow")


class Participant(_Open):
    """A participant of a chat."""

    participant_id: str
    name: str | None = None
    role: Literal["agent", "customer"]


class Message(_Open):
    """A message of a chat."""

    participant_id: str
    timestamp: str
    content: str


class ChatBody(_Open):
    """A chat."""

    participants: list[Participant] = Field(min_length=1)
    messages: list[Message] = Field(min_length=1)


class Chat(Declaration):
    """A text chat."""

    chat: ChatBody


class PhraseSegment(_Open):
    """The position of a phrase, in milliseconds."""

    startTimeOffset: int
    endTimeOffset: int
    phraseIndex: int
    score: float | None = None


class Speech(_Open):
    """The phrases of one participant or of all."""

    phrases: list[Any]
    phraseSegments: list[PhraseSegment]


class TranscriptBody(_Open):
    """A transcript made elsewhere."""

    allParticipants: Speech | None = None
    participantOne: Speech | None = None
    participantTwo: Speech | None = None
    redactionSegments: list[Any] | None = None


class Transcript(Declaration):
    """A transcript to analyse."""

    transcript: TranscriptBody
