"""`/v1/providers` and `/v1/counts`: what can be asked for, what is let through, and how many jobs there are."""

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from outwait.web.answers import Counts, OperationInfo, ProviderInfo, Providers, Resumed, answer, documented
from outwait.web.auth import Operator, Reader, need_whole
from outwait.web.routing import ApiRoute, ProviderName
from outwait.web.services import Shared
from outwait.worker.providers.registry import PROVIDERS, Registry
from outwait.worker.store.governors import GroupStatus

router = APIRouter(prefix="/v1", tags=["providers"], route_class=ApiRoute)

ProviderPath = Annotated[ProviderName, Path(description="A provider's name.")]


class Pause(BaseModel):
    """Why nothing more is to be sent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: str = Field(default="", max_length=300)


@router.get("/providers", operation_id="listProviders", responses=documented(Providers))
async def providers(shared: Shared, key: Reader) -> Response:
    """The providers, their operations with the JSON schema of the parameters, and what the governor lets through."""
    status = {} if key.tenant else {one.group: one for one in await shared.client.providers()}
    return answer(Providers([_info(shared.registry, name, status.get(name)) for name in shared.registry.names]))


@router.get("/counts", operation_id="countJobs", responses=documented(Counts))
async def counts(shared: Shared, key: Reader) -> Response:
    """How many jobs stand in each state, by provider; for keys without a tenant."""
    need_whole(key)
    return answer(Counts(await shared.client.counts()))


@router.post(
    "/providers/{provider}/pause",
    operation_id="pauseProvider",
    responses=documented(GroupStatus, 400, 404, 413, 415, told="Nothing more is sent to it."),
)
async def pause(provider: ProviderPath, shared: Shared, key: Operator, body: Pause | None = None) -> Response:
    """Send nothing more to a provider until it is resumed; for keys without a tenant."""
    need_whole(key)
    await shared.client.pause(provider, body.reason if body else "")
    (status,) = [one for one in await shared.client.providers() if one.group == provider]
    return answer(status)


@router.post("/providers/{provider}/resume", operation_id="resumeProvider", responses=documented(Resumed, 404))
async def resume(provider: ProviderPath, shared: Shared, key: Operator) -> Response:
    """Let a provider go on; for keys without a tenant."""
    need_whole(key)
    return answer(Resumed(await shared.client.resume(provider)))


def _info(registry: Registry, name: str, status: GroupStatus | None) -> ProviderInfo:
    operations = [registry.operation(name, operation) for operation in PROVIDERS[name].operations]
    described = [
        OperationInfo(one.name, one.params.model_json_schema(), one.poll_every, one.deadline, one.expiry)
        for one in operations
    ]
    return ProviderInfo(name, name in registry.providers, described, status)
