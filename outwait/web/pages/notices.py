"""What a page says after a button was pressed: a closed set, so that no link can put words into our mouth."""

from outwait.worker.model.outcomes import Choice

_NOTICES: dict[str, str] = {
    "cancelled": "The job is cancelled.",
    "cancel-asked": "The job is cancelled when the answer to its submit, which is on its way, has come.",
    Choice.SUBMITTED_AS: "The job waits for its result under that external id.",
    Choice.RESUBMIT: "The job is submitted again.",
    Choice.FAIL: "The job failed; its handlers hear of it.",
    Choice.AS_WEBHOOK: "The job ended as its webhook says; its handlers hear of it.",
    "paused": "Nothing more is sent there until somebody resumes it. What was on its way already ends.",
    "resumed": "It goes on.",
    "enabled": "It is sent to again. Replay what is dead for it.",
}


def notice(done: str, many: str) -> str:
    """The words for what was done to so many; none if it is unknown."""
    if done != "replayed":
        return _NOTICES.get(done, "")
    match int(many) if many.isdecimal() and len(many) < 9 else 0:
        case 0:
            return "Nothing was repeated: what was chosen is dead no longer."
        case 1:
            return "One delivery is repeated. The provider is not asked again."
        case number:
            return f"{number:,} deliveries are repeated. The provider is not asked again."
