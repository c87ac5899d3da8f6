"""Options of one sandbox process."""

import dataclasses
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from outwait.sandbox.behaviour import BadOrder, Behaviour, describe

Limit = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class SandboxOptions:
    """Options of one sandbox process. Times in seconds; limits are requests in one `window`.

    Args:
        seed: for the jitter of durations and the probabilities of faults.
        behaviour: how jobs behave unless something else is ordered.
        heavy_limit: RingCentral's group Heavy: submits and polls together (10 at the real provider).
        auth_limit: RingCentral's group Auth: tokens (5 at the real provider).
        elevateai_limit: none by default.
        unless_limit: none by default.
        window: length of the window of every limit.
        penalty: length of the penalty for exceeding a limit; at RingCentral each request during it restarts it.
        token_ttl: life of a RingCentral access token.
        sessions: access tokens that are valid at the same time; a further one ends the oldest.
        upload_max: bytes of an upload; a larger one is answered with 413.
        upload_status: answer to an upload: the reference says 201, NICE's SDK for Java takes only 200 for a success.
        poll_minimum: polls of a job with a shorter interval are counted as too fast.
        webhook_backoff: seconds before the first redelivery of a webhook; doubled each time.
    """

    seed: int = 0
    behaviour: Behaviour = dataclasses.field(default_factory=Behaviour)
    heavy_limit: Limit = 1_000_000
    auth_limit: Limit = 1_000_000
    elevateai_limit: Limit | None = None
    unless_limit: Limit | None = None
    window: Seconds = 60
    penalty: Seconds = 60
    token_ttl: Seconds = 3600
    sessions: Limit = 5
    upload_max: Limit = 1 << 30
    upload_status: Literal[200, 201] = 201
    poll_minimum: Annotated[float, Field(ge=0)] = 0
    webhook_backoff: Seconds = 1


def read_options(text: str) -> SandboxOptions:
    """Options from JSON. Raises BadOrder."""
    try:
        return TypeAdapter(SandboxOptions).validate_json(text)
    except ValidationError as error:
        raise BadOrder(describe(error)) from error
