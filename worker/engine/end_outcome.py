"""What a provider's final answer means for a job, whether a poll or a webhook brought it. Pure."""

import msgspec

from outwait.config.groups import StoreSettings
from outwait.worker.model.errors import ResultTooLarge
from outwait.worker.model.jobs import JobError, JobState
from outwait.worker.model.outcomes import NO_COUNTS, Counts, End
from outwait.worker.net.redaction import redact, redact_all
from outwait.worker.providers.contract import Failed, Succeeded
from outwait.worker.store import codec


def end_outcome(
    work_id: str, fence: int, answer: Succeeded | Failed, store: StoreSettings, counts: Counts = NO_COUNTS
) -> End:
    """The end of the job."""
    state, status, error = JobState.FAILED, answer.status, ""
    result: msgspec.Raw | None = None
    match answer:
        case Failed():
            detail = redact_all({"status": answer.status, "code": answer.code, "detail": answer.detail})
            error = JobError("provider_failed", redact(f"{answer.code}: {answer.message}"), detail).text()
        case Succeeded():
            text = codec.encode(answer.result)
            if len(text) <= store.result_max:
                state, result = JobState.SUCCEEDED, codec.blob(text, store.compress_above)
            else:
                status, error = "", _too_large(len(text), store.result_max).text()
    return End(work_id=work_id, fence=fence, state=state, error=error, result=result, status=status, **counts._asdict())


def _too_large(size: int, limit: int) -> JobError:
    message = f"the result has {size} bytes, more than the {limit} of OUTWAIT_STORE__RESULT_MAX"
    return JobError(ResultTooLarge.code, message)
