"""Every class of the error tree, for the tables of decisions: a new class without a row fails them."""

from outwait.worker.model import errors
from outwait.worker.model.errors import OutwaitError

ERRORS: tuple[type[OutwaitError], ...] = tuple(
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, OutwaitError)
)

OF_PROVIDERS = (
    errors.ProviderError,
    errors.NotSent,
    errors.Withheld,
    errors.AddressRefused,
    errors.AnswerLost,
    errors.RateLimited,
    errors.Unavailable,
    errors.Unreadable,
    errors.Unauthorized,
    errors.Rejected,
    errors.ExternalIdUnknown,
    errors.ResultTooLarge,
)

OF_HANDLERS = (errors.HandlerError, errors.DeliveryFailed, errors.DeliveryRefused)

OF_NO_STEP = (
    errors.OutwaitError,
    errors.RequestError,
    errors.InvalidRequest,
    errors.WrongState,
    errors.Conflict,
    errors.ExternalIdTaken,
    errors.JobNotFound,
    errors.NotReplayable,
    errors.QuotaExceeded,
    errors.StorageExceeded,
    errors.Unauthenticated,
    errors.Forbidden,
    errors.OperatorError,
    errors.ProviderNotConfigured,
    errors.StoreUnfit,
    errors.StoreUnavailable,
    errors.StoreRefused,
    errors.NoRedisServer,
    errors.JobEnded,
    errors.JobFailed,
    errors.JobExpired,
    errors.JobCancelled,
)

BESIDE_THE_PROVIDER = (*OF_HANDLERS, *OF_NO_STEP)
"""What no provider's answer means: a step that meets one of these treats it like any unexpected exception."""

BESIDE_THE_HANDLERS = (*OF_PROVIDERS, *OF_NO_STEP)
"""What no handler should raise: an unexpected exception, which is worth another attempt."""
