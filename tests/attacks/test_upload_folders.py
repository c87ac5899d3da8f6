"""A tenant's job uploads no file of another tenant's, if the operator gives each tenant a folder of its own."""

from pathlib import Path

from outwait.client.store import StoreClient
from outwait.worker.model.jobs import Job, JobRequest, JobState
from tests.stack import Stack, ended

ELEVATEAI = "OUTWAIT_PROVIDERS__ELEVATEAI__"


async def upload(client: StoreClient, source: str, tenant: str | None) -> Job:
    params = {"languageTag": "en-us", "source": source}
    request = JobRequest(provider="elevateai", operation="audio", params=params, tenant=tenant)
    return await ended(client, (await client.enqueue(request)).job_id)


async def test_each_tenant_uploads_from_its_own_folder(redis_url: str, tmp_path: Path) -> None:
    """Protected by worker/providers/files.py `folder_of`, after the submit and before each upload."""
    uploads = tmp_path / "uploads"
    for name in ("attacker", "victim"):
        (uploads / name).mkdir(parents=True)
        (uploads / name / "call.wav").write_bytes(name.encode() * 1000)
    (tmp_path / "secret.wav").write_bytes(b"of the machine")
    variables = {f"{ELEVATEAI}UPLOAD_FOLDER": str(uploads), f"{ELEVATEAI}UPLOAD_BY_TENANT": "true"}
    with Stack(redis_url, tmp_path, options={"behaviour": {"duration": 0}}, variables=variables) as stack:
        stack.worker()
        async with stack.client() as client:
            others = ("victim/call.wav", "../victim/call.wav", str(uploads / "victim" / "call.wav"), "../../secret.wav")
            for source in others:
                refused = await upload(client, source, "attacker")
                assert (refused.state, refused.ledger.submits) == (JobState.FAILED, 0), source
            assert (await upload(client, "call.wav", "attacker")).state is JobState.SUCCEEDED
            for tenant in ("..", "."):
                refused = await upload(client, "secret.wav", tenant)
                assert refused.error is not None
                assert f"there can be no folder of the tenant {tenant!r}" in refused.error.message
            assert (await upload(client, "victim/call.wav", None)).state is JobState.SUCCEEDED  # the operator's own
