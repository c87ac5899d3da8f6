"""The message on a page after a button was pressed: a closed set, so that no link can make a page show other text."""

from outwait.worker.model.outcomes import Choice

_NOTICES: dict[str, str] = {
    "cancelled": "The job is cancelled.",
    "cancel-asked": "The job is being submitted now. It is cancelled when that request is answered.",
    Choice.SUBMITTED_AS: "The job waits for its result under that external id.",
    Choice.RESUBMIT: "The job will be submitted again.",
    Choice.FAIL: "The job failed; its handlers are informed.",
    Choice.AS_WEBHOOK: "The job ended as its webhook says; its handlers are informed.",
    "repolled": "The job is polled again. Nothing is submitted, and nothing is paid.",
    "paused": "The provider is paused until somebody resumes it. Requests that were already sent are finished.",
    "resumed": "The provider is resumed.",
    "enabled": "The receiver is enabled. Replay its dead deliveries.",
}


def notice(done: str, count: str) -> str:
    """The message for what was done, and to how many; empty if `done` is unknown."""
    if done != "replayed":
        return _NOTICES.get(done, "")
    match int(count) if count.isdecimal() and len(count) < 9 else 0:
        case 0:
            return "Nothing was repeated: the chosen deliveries are no longer dead."
        case 1:
            return "One delivery will be repeated. Nothing is sent to the provider again."
        case number:
            return f"{number:,} deliveries will be repeated. Nothing is sent to the provider again."
