"""What a provider's final answer makes of a job, whether it was polled or posted."""

from outwait.config.groups import StoreSettings
from outwait.worker.model.errors import ResultTooLarge
from outwait.worker.model.jobs import JobError, JobState
from outwait.worker.model.outcomes import NO_COUNTS, Counts, End
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
            return End(
                work_id=item,
                fence=fence,
                state=JobState.FAILED,
                error=error.text(),
                status=answer.status,
                **counts._asdict(),
            )
        case Succeeded():
            text = codec.encode(answer.result)
            if len(text) <= store.result_max:
                result = codec.blob(text, store.compress_above)
                return End(
                    work_id=item,
                    fence=fence,
                    state=JobState.SUCCEEDED,
                    result=result,
                    status=answer.status,
                    **counts._asdict(),
                )
            message = f"the result has {len(text)} bytes, more than the {store.result_max} of OUTWAIT_STORE__RESULT_MAX"
            error = JobError(ResultTooLarge.code, message)
            return End(work_id=item, fence=fence, state=JobState.FAILED, error=error.text(), **counts._asdict())
