"""Outwait: jobs on slow, asynchronous AI APIs, submitted once and waited for however long they take.

What other code imports stands in `__all__`. Each name is imported when it is first used, so that `import outwait`
costs nothing and a room imports only what it needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from outwait.client.asynchronous import AsyncClient
    from outwait.client.blocking import Client
    from outwait.client.store import Enqueued
    from outwait.config.errors import ConfigError
    from outwait.config.groups import BaseUrl
    from outwait.tasks.handlers.envelope import Envelope
    from outwait.tasks.handlers.functions import handler
    from outwait.worker.model.errors import (
        AnswerLost,
        Conflict,
        DeliveryFailed,
        DeliveryRefused,
        ExternalIdTaken,
        ExternalIdUnknown,
        Forbidden,
        InvalidRequest,
        JobCancelled,
        JobEnded,
        JobExpired,
        JobFailed,
        JobNotFound,
        NotReplayable,
        NotSent,
        OperatorError,
        OutwaitError,
        ProviderError,
        QuotaExceeded,
        RateLimited,
        Rejected,
        RequestError,
        ResultTooLarge,
        StoreUnavailable,
        Unauthenticated,
        Unauthorized,
        Unavailable,
        Unreadable,
        WrongState,
    )
    from outwait.worker.model.jobs import (
        Delivery,
        DeliveryState,
        Job,
        JobError,
        JobRequest,
        JobState,
        TimelineEntry,
        UncertainPolicy,
    )
    from outwait.worker.model.outcomes import Choice
    from outwait.worker.providers.contract import (
        Credential,
        Failed,
        HeaderText,
        Operation,
        Params,
        Pending,
        PollAnswer,
        Provider,
        ProviderSettings,
        Submission,
        SubmitAnswer,
        Succeeded,
        Waiting,
        WebhookAnswer,
    )
    from outwait.worker.providers.exchange import Count, Exchange, check, error_text, json_object, retry_after
    from outwait.worker.store.dead import DeadDelivery
    from outwait.worker.store.listing import Page

__all__ = [
    "AnswerLost",
    "AsyncClient",
    "BaseUrl",
    "Choice",
    "Client",
    "ConfigError",
    "Conflict",
    "Count",
    "Credential",
    "DeadDelivery",
    "Delivery",
    "DeliveryFailed",
    "DeliveryRefused",
    "DeliveryState",
    "Enqueued",
    "Envelope",
    "Exchange",
    "ExternalIdTaken",
    "ExternalIdUnknown",
    "Failed",
    "Forbidden",
    "HeaderText",
    "InvalidRequest",
    "Job",
    "JobCancelled",
    "JobEnded",
    "JobError",
    "JobExpired",
    "JobFailed",
    "JobNotFound",
    "JobRequest",
    "JobState",
    "NotReplayable",
    "NotSent",
    "Operation",
    "OperatorError",
    "OutwaitError",
    "Page",
    "Params",
    "Pending",
    "PollAnswer",
    "Provider",
    "ProviderError",
    "ProviderSettings",
    "QuotaExceeded",
    "RateLimited",
    "Rejected",
    "RequestError",
    "ResultTooLarge",
    "StoreUnavailable",
    "Submission",
    "SubmitAnswer",
    "Succeeded",
    "TimelineEntry",
    "Unauthenticated",
    "Unauthorized",
    "Unavailable",
    "UncertainPolicy",
    "Unreadable",
    "Waiting",
    "WebhookAnswer",
    "WrongState",
    "check",
    "error_text",
    "handler",
    "json_object",
    "retry_after",
]

_NAMES = {
    "outwait.client.asynchronous": "AsyncClient",
    "outwait.client.blocking": "Client",
    "outwait.client.store": "Enqueued",
    "outwait.config.errors": "ConfigError",
    "outwait.config.groups": "BaseUrl",
    "outwait.tasks.handlers.envelope": "Envelope",
    "outwait.tasks.handlers.functions": "handler",
    "outwait.worker.model.errors": (
        "OutwaitError RequestError InvalidRequest WrongState Conflict ExternalIdTaken JobNotFound NotReplayable "
        "QuotaExceeded Unauthenticated Forbidden ProviderError NotSent AnswerLost RateLimited Unavailable Unreadable "
        "Unauthorized Rejected ExternalIdUnknown ResultTooLarge DeliveryFailed DeliveryRefused OperatorError "
        "StoreUnavailable JobEnded JobFailed JobExpired JobCancelled"
    ),
    "outwait.worker.model.jobs": (
        "Delivery DeliveryState Job JobError JobRequest JobState TimelineEntry UncertainPolicy"
    ),
    "outwait.worker.model.outcomes": "Choice",
    "outwait.worker.providers.contract": (
        "Credential Failed HeaderText Operation Params Pending PollAnswer Provider ProviderSettings "
        "Submission SubmitAnswer Succeeded Waiting WebhookAnswer"
    ),
    "outwait.worker.providers.exchange": "Count Exchange check error_text json_object retry_after",
    "outwait.worker.store.dead": "DeadDelivery",
    "outwait.worker.store.listing": "Page",
}
"""The public names by the module that defines them."""

_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'outwait' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
