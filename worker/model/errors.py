"""Every error of Outwait, sorted by who must act.

OutwaitError
├── RequestError                the producer changes the request
│   ├── InvalidRequest          malformed, unknown provider or operation, wrong parameter, too large
│   │   └── WrongState          the job is not in a state in which this can be done
│   ├── Conflict                the same job id or idempotency key was used for another request
│   ├── JobNotFound             no job has this id (any more)
│   ├── NotReplayable           nothing of this job can be delivered again
│   ├── Unauthenticated         no API key came with the request, or none that is good (any more)
│   └── Forbidden               the API key is not for this
├── ProviderError               the provider's side; each step's `decide_error` says what happens to the job
│   ├── NotSent                 the request certainly never left: connection refused, DNS, TLS
│   │   └── AddressRefused      a producer named a host whose address is not public: the operator may allow it
│   ├── AnswerLost              it left, and no answer came: broken connection, time-out
│   ├── RateLimited             429 (or what the provider uses for it): wait `retry_after`
│   ├── Unavailable             408 or 5xx
│   ├── Unreadable              the answer is not what the provider documents (HTML, broken JSON)
│   ├── Unauthorized            401 or 403: the operator checks the credentials
│   ├── Rejected                any other 4xx: this request will never be accepted
│   ├── ExternalIdUnknown       the provider does not know the id (any more)
│   └── ResultTooLarge          an answer over `OUTWAIT_STORE__RESULT_MAX`
├── HandlerError
│   ├── DeliveryFailed          worth another attempt
│   └── DeliveryRefused         never will succeed: straight to the dead letter
├── OperatorError               the operator acts
│   ├── ProviderNotConfigured   its settings are missing or wrong
│   ├── StoreUnfit              Redis evicts keys or is too old
│   ├── StoreUnavailable        Redis does not answer
│   ├── StoreRefused            Redis refuses a command for good: no permission, too large, a bug of ours
│   └── NoRedisServer           no server binary for the embedded Redis
└── JobEnded                    what AsyncResult(job_id).get() raises in the producer
    ├── JobFailed               the provider, or we, gave up
    ├── JobExpired              the deadline passed
    └── JobCancelled            somebody gave it up
"""

from typing import ClassVar


class OutwaitError(Exception):
    """Root of the tree. `code` is stable: branch on it, never on the message."""

    code: ClassVar[str] = "outwait_error"


class RequestError(OutwaitError):
    """The producer must change the request."""

    code = "request_error"


class InvalidRequest(RequestError):
    """The job cannot be accepted as it is."""

    code = "invalid_request"


class WrongState(InvalidRequest):
    """The job is not in a state in which this can be done."""

    code = "wrong_state"


class Conflict(RequestError):
    """The same job id or idempotency key was used for another request."""

    code = "conflict"


class JobNotFound(RequestError):
    """No job has this id, or it was purged after its retention."""

    code = "job_not_found"


class NotReplayable(RequestError):
    """The job has no delivery that could be repeated."""

    code = "not_replayable"


class Unauthenticated(RequestError):
    """No API key came with the request, or none that is good (any more)."""

    code = "unauthenticated"


class Forbidden(RequestError):
    """The API key has not the scope, or not the tenant."""

    code = "forbidden"


class ProviderError(OutwaitError):
    """Something on the provider's side.

    Args:
        message: what happened, without secrets.
        retry_after: seconds that the provider asked us to wait, if it said so.
        detail: the provider's own code or body, shortened.
        status: the HTTP status of the answer, if there was one.
    """

    code = "provider_error"

    def __init__(
        self, message: str, *, retry_after: float | None = None, detail: object = None, status: int | None = None
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.detail = detail
        self.status = status


class NotSent(ProviderError):
    """The request certainly never left this machine."""

    code = "not_sent"


class AddressRefused(NotSent):
    """A producer named a host that has no public address and that the operator does not allow."""

    code = "address_refused"


class AnswerLost(ProviderError):
    """The request left, perhaps, and no answer came."""

    code = "answer_lost"


class RateLimited(ProviderError):
    """The provider asks us to slow down."""

    code = "rate_limited"


class Unavailable(ProviderError):
    """The provider failed: 408 or 5xx."""

    code = "unavailable"


class Unreadable(ProviderError):
    """The answer is not what the provider documents."""

    code = "unreadable_answer"


class Unauthorized(ProviderError):
    """The credentials are wrong, expired or lack a permission."""

    code = "unauthorized"


class Rejected(ProviderError):
    """The provider refused the request for good."""

    code = "rejected"


class ExternalIdUnknown(ProviderError):
    """The provider does not know the external id (any more)."""

    code = "external_id_unknown"


class ResultTooLarge(ProviderError):
    """An answer was larger than the cap."""

    code = "result_too_large"


class HandlerError(OutwaitError):
    """A delivery did not succeed."""

    code = "handler_error"


class DeliveryFailed(HandlerError):
    """Worth another attempt.

    Args:
        message: what happened, without secrets.
        retry_after: seconds that the receiver asked us to wait, if it said so.
    """

    code = "delivery_failed"

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DeliveryRefused(HandlerError):
    """Will never succeed: the handler is unknown, or said so."""

    code = "delivery_refused"


class OperatorError(OutwaitError):
    """The operator must act."""

    code = "operator_error"


class ProviderNotConfigured(OperatorError):
    """The provider's settings are missing or wrong."""

    code = "provider_not_configured"


class StoreUnfit(OperatorError):
    """Redis runs in a way that would lose jobs."""

    code = "store_unfit"


class StoreUnavailable(OperatorError):
    """Redis does not answer."""

    code = "store_unavailable"


class StoreRefused(OperatorError):
    """Redis refuses a command for good."""

    code = "store_refused"


class NoRedisServer(OperatorError):
    """No server binary was found for the embedded Redis."""

    code = "no_redis_server"


class JobEnded(OutwaitError):
    """A job ended without a result. Celery names the class by this module in the producer's process."""

    __module__ = "outwait"
    code = "job_ended"


class JobFailed(JobEnded):
    """The provider, or we, gave up."""

    __module__ = "outwait"
    code = "job_failed"


class JobExpired(JobEnded):
    """The deadline passed."""

    __module__ = "outwait"
    code = "job_expired"


class JobCancelled(JobEnded):
    """Somebody gave the job up."""

    __module__ = "outwait"
    code = "job_cancelled"
