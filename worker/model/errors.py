"""All errors of Outwait, sorted by who must act.

OutwaitError
├── RequestError                the producer must change the request
│   ├── InvalidRequest          malformed, unknown provider or operation, invalid parameter, too large
│   │   └── WrongState          the job's state does not allow this
│   ├── Conflict                a different request has the same job id or idempotency key
│   ├── ExternalIdTaken         another job of the provider has this external id
│   ├── JobNotFound             no job has this id, or it was purged
│   ├── NotReplayable           the job has no delivery that can be repeated
│   ├── QuotaExceeded           the tenant has as many open jobs, or has enqueued as many in a minute, as it may
│   │   └── StorageExceeded     the tenant's requests and results take as much memory as they may
│   ├── Unauthenticated         the request has no API key, or the key is unknown or revoked
│   └── Forbidden               the API key does not allow this
├── ProviderError               the request to the provider failed; each step's `decide_error` decides what follows
│   ├── NotSent                 the request certainly never left this machine: connection refused, DNS, TLS
│   │   └── AddressRefused      a producer named a host without a public address; the operator may allow it
│   ├── AnswerLost              the request may have left, and no answer came: broken connection, time-out
│   ├── RateLimited             429 (or the provider's equivalent): wait `retry_after`
│   ├── Unavailable             408 or 5xx
│   ├── Unreadable              the answer is not what the provider documents (HTML, broken JSON)
│   ├── Unauthorized            401 or 403: the operator must check the credentials
│   ├── Rejected                any other 4xx: the provider will never accept this request
│   ├── ExternalIdUnknown       the provider does not know the external id, or has deleted it
│   └── ResultTooLarge          the answer is larger than `OUTWAIT_STORE__RESULT_MAX`
├── HandlerError                a delivery failed; who runs the handler must act
│   ├── DeliveryFailed          another attempt may succeed
│   └── DeliveryRefused         no attempt can succeed: the delivery is dead at once
├── OperatorError               the operator must act
│   ├── ProviderNotConfigured   the provider's settings are missing or wrong
│   ├── StoreUnfit              Redis evicts keys or is too old
│   ├── StoreUnavailable        Redis does not answer, or refuses writes for a while; `outage` says why
│   ├── StoreRefused            Redis can never do this: too large, a key of another type, a bug in Outwait
│   └── NoRedisServer           there is no server binary for the embedded Redis
└── JobEnded                    the job ended without a result; raised by AsyncResult(job_id).get() in the producer
    ├── JobFailed               the provider or Outwait gave up
    ├── JobExpired              the deadline passed
    └── JobCancelled            a person or the producer cancelled it
"""

from typing import ClassVar

from outwait.worker.model.store_outages import StoreOutage


class OutwaitError(Exception):
    """The base of all errors. `code` is stable: branch on it, never on the message."""

    code: ClassVar[str] = "outwait_error"


class RequestError(OutwaitError):
    """The producer must change the request."""

    code = "request_error"


class InvalidRequest(RequestError):
    """The job cannot be accepted as it is."""

    code = "invalid_request"


class WrongState(InvalidRequest):
    """The job's state does not allow this."""

    code = "wrong_state"


class Conflict(RequestError):
    """A different request has the same job id or idempotency key."""

    code = "conflict"


class ExternalIdTaken(RequestError):
    """Another job of the provider has this external id, and with it the result."""

    code = "external_id_taken"


class JobNotFound(RequestError):
    """No job has this id, or it was purged after its retention."""

    code = "job_not_found"


class NotReplayable(RequestError):
    """The job has no delivery that can be repeated."""

    code = "not_replayable"


class QuotaExceeded(RequestError):
    """The tenant has as many open jobs as it may have, or has enqueued as many in a minute.

    Args:
        message: what is exceeded, and what to do.
        retry_after: seconds after which it may be worth trying again, if waiting helps.
    """

    code = "quota_exceeded"

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StorageExceeded(QuotaExceeded):
    """The stored requests and results of the tenant take as much as they may."""

    code = "storage_exceeded"


class Unauthenticated(RequestError):
    """The request has no API key, or the key is unknown or revoked."""

    code = "unauthenticated"


class Forbidden(RequestError):
    """The API key lacks the scope, or is for another tenant."""

    code = "forbidden"


class ProviderError(OutwaitError):
    """A request to a provider failed.

    Args:
        message: what happened, without secrets.
        retry_after: seconds to wait, if the provider named a time.
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


class Withheld(NotSent):
    """Our worker kept the request back: the lease of its step may have ended, or the provider was silenced."""

    code = "withheld"


class AddressRefused(NotSent):
    """A producer named a host that has no public address, and the operator does not allow it."""

    code = "address_refused"


class AnswerLost(ProviderError):
    """The request may have left this machine, and no answer came."""

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
    """The provider does not know the external id, or has deleted it."""

    code = "external_id_unknown"


class ResultTooLarge(ProviderError):
    """The answer is larger than `OUTWAIT_STORE__RESULT_MAX`."""

    code = "result_too_large"


class HandlerError(OutwaitError):
    """A delivery did not succeed."""

    code = "handler_error"


class DeliveryFailed(HandlerError):
    """The delivery failed, and another attempt may succeed.

    Args:
        message: what happened, without secrets.
        retry_after: seconds to wait, if the receiver named a time.
    """

    code = "delivery_failed"

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DeliveryRefused(HandlerError):
    """The delivery cannot succeed: the handler is unknown, or it refused for good."""

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
    """Redis does not answer, or refuses commands for a while: what was to be written is tried again.

    Args:
        message: what happened, for the operator.
        outage: what keeps Redis from it.
    """

    code = "store_unavailable"

    def __init__(self, message: str, outage: StoreOutage = StoreOutage.UNREACHABLE) -> None:
        super().__init__(message)
        self.outage = outage


class StoreRefused(OperatorError):
    """Redis can never do what it was asked, however often it is asked."""

    code = "store_refused"


class NoRedisServer(OperatorError):
    """No server binary was found for the embedded Redis."""

    code = "no_redis_server"


class JobEnded(OutwaitError):
    """A job ended without a result. Celery finds the class in the producer's process by this module name."""

    __module__ = "outwait"
    code = "job_ended"


class JobFailed(JobEnded):
    """The provider or Outwait gave up."""

    __module__ = "outwait"
    code = "job_failed"


class JobExpired(JobEnded):
    """The deadline passed."""

    __module__ = "outwait"
    code = "job_expired"


class JobCancelled(JobEnded):
    """A person or the producer cancelled the job."""

    __module__ = "outwait"
    code = "job_cancelled"
