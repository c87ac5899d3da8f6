"""Every class of the error tree, for the tables of decisions: a new class without a row fails them."""

from outwait.worker.model import errors
from outwait.worker.model.errors import OutwaitError

ERRORS: tuple[type[OutwaitError], ...] = tuple(
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, OutwaitError)
)

BESIDE_THE_PROVIDER = (
    errors.OutwaitError,
    errors.RequestError,
    errors.InvalidRequest,
    errors.WrongState,
    errors.Conflict,
    errors.JobNotFound,
    errors.NotReplayable,
    errors.Unauthenticated,
    errors.Forbidden,
    errors.HandlerError,
    errors.DeliveryFailed,
    errors.DeliveryRefused,
    errors.OperatorError,
    errors.ProviderNotConfigured,
    errors.StoreUnfit,
    errors.StoreUnavailable,
    errors.StoreLocked,
    errors.StoreRefused,
    errors.NoRedisServer,
    errors.JobEnded,
    errors.JobFailed,
    errors.JobExpired,
    errors.JobCancelled,
)
"""What no provider's answer means: a step that meets one of these treats it like any unexpected exception."""
