"""What a provider's final answer makes of a job, whether it was polled or posted."""

from outwait.config.groups import StoreSettings
from outwait.worker.model.errors import ResultTooLarge
from outwait.worker.model.jobs import JobError, JobState
from outwait.worker.model.outcomes import NO_COUNTS, NOTHING, Counts, End
from outwait.worker.providers.contract import Failed, Succeeded
from outwait.worker.store import codec


def end_outcome(
    item: str, fence: int, answer: Succeeded | Failed, store: StoreSettings, counts: Counts = NO_COUNTS
) -> End:
    """The job's end."""
    match answer:
        case Failed():
            detail = {"status": answer.status, "code": answer.code, "detail": answer.detail}
            error = JobError("provider_failed", f"{answer.code}: {answer.message}", detail)
            return End(item, fence, JobState.FAILED, error.text(), NOTHING, answer.status, *counts)
        case Succeeded():
            text = codec.encode(answer.result)
            if len(text) <= store.result_max:
                result = codec.blob(text, store.compress_above)
                return End(item, fence, JobState.SUCCEEDED, "", result, answer.status, *counts)
            message = f"the result has {len(text)} bytes, more than the {store.result_max} of OUTWAIT_STORE__RESULT_MAX"
            error = JobError(ResultTooLarge.code, message)
            return End(item, fence, JobState.FAILED, error.text(), NOTHING, "", *counts)
