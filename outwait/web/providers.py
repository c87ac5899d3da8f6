"""`/v1/providers` and `/v1/counts`: operations, limits and pauses of providers, and the number of jobs."""

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from outwait.web.actors import Deciding
from outwait.web.answers import Counts, OperationInfo, ProviderInfo, Providers, Resumed, answer, documented
from outwait.web.auth import Operator, Reader, require_all_tenants
from outwait.web.routing import ApiRoute, ProviderName
from outwait.web.services import Shared
from outwait.worker.providers.registry import PROVIDERS, Registry
from outwait.worker.store.governors import GroupStatus

router = APIRouter(prefix="/v1", tags=["providers"], route_class=ApiRoute)

ProviderPath = Annotated[ProviderName, Path(description="A provider's name.")]


class Pause(BaseModel):
    """The reason for a pause."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: str = Field(default="", max_length=300)


@router.get("/providers", operation_id="listProviders", responses=documented(Providers))
async def providers(shared: Shared, key: Reader) -> Response:
    """The providers, their operations with the JSON schema of the parameters, and their load, limits and pauses."""
    statuses = {} if key.tenant else {status.provider: status for status in await shared.client.providers()}
    return answer(Providers([_info(shared.registry, name, statuses.get(name)) for name in shared.registry.names]))


@router.get("/counts", operation_id="countJobs", responses=documented(Counts))
async def counts(shared: Shared, key: Reader) -> Response:
    """The number of jobs in each state, by provider. Only for API keys that are not limited to one tenant."""
    require_all_tenants(key)
    return answer(Counts(await shared.client.counts()))


@router.post(
    "/providers/{provider}/pause",
    operation_id="pauseProvider",
    responses=documented(GroupStatus, 400, 404, 413, 415, description="The provider is paused."),
)
async def pause(
    provider: ProviderPath, shared: Shared, key: Operator, client: Deciding, body: Pause | None = None
) -> Response:
    """Send no more requests to a provider until it is resumed. Only for API keys not limited to one tenant."""
    require_all_tenants(key)
    await client.pause(provider, body.reason if body else "")
    (status,) = [status for status in await shared.client.providers() if status.provider == provider]
    return answer(status)


@router.post("/providers/{provider}/resume", operation_id="resumeProvider", responses=documented(Resumed, 404))
async def resume(provider: ProviderPath, key: Operator, client: Deciding) -> Response:
    """End a pause of a provider, a person's or one that the provider asked for. Not for API keys of one tenant."""
    require_all_tenants(key)
    return answer(Resumed(await client.resume(provider)))


def _info(registry: Registry, name: str, status: GroupStatus | None) -> ProviderInfo:
    operations = [registry.operation(name, operation) for operation in PROVIDERS[name].operations]
    infos = [
        OperationInfo(
            operation.name,
            operation.params.model_json_schema(),
            operation.poll_every,
            operation.deadline,
            operation.expiry,
        )
        for operation in operations
    ]
    return ProviderInfo(name, name in registry.providers, infos, status)
