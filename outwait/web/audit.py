"""`/v1/audit`: what persons did."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from outwait.web.answers import Acts, answer, documented
from outwait.web.auth import Reader, permitted_tenant, visible
from outwait.web.routing import ApiRoute
from outwait.web.services import Shared
from outwait.worker.model.acts import Act
from outwait.worker.model.api_keys import ApiKey, Scope
from outwait.worker.model.jobs import JOB_ID_PATTERN, TENANT_PATTERN

router = APIRouter(prefix="/v1", route_class=ApiRoute)


class Wanted(BaseModel):
    """Which acts are listed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    job: str | None = Field(default=None, pattern=JOB_ID_PATTERN, description="Only acts about this job.")
    tenant: str | None = Field(
        default=None, pattern=TENANT_PATTERN, description="Only acts of this tenant's keys, or about its jobs."
    )
    until: Annotated[
        float | None,
        Field(ge=0, le=1e11, allow_inf_nan=False, description="Only acts before then (seconds since 1970)."),
    ] = None
    limit: int = Field(default=50, ge=1, le=500, description="Maximum number of acts.")


@router.get("/audit", operation_id="listActs", tags=["audit"], responses=documented(Acts, 404))
async def acts(shared: Shared, key: Reader, query: Annotated[Wanted, Query()]) -> Response:
    """What persons did: who, what, when and from where. An API key of one tenant sees what concerns that tenant.

    Addresses are shown to keys with the scope operate, and only to those that are not of another tenant.
    """
    tenant = permitted_tenant(key, query.tenant)
    job = (await visible(shared, key, query.job)).id if query.job is not None else None
    listed = await shared.client.acts(query.limit, tenant=None if job else tenant, job=job, until=query.until)
    return answer(Acts([shown_act(act, key) for act in listed]))


def shown_act(act: Act, key: ApiKey) -> Act:
    """The act, without the address if it is none of this key's business."""
    sees_address = Scope.OPERATE in key.scopes and key.tenant in {None, act.key_tenant}
    return act if sees_address else msgspec.structs.replace(act, address="")
