"""API keys over HTTP: a key with the scope `keys` lists, makes, rotates and revokes keys that allow no more than it."""

import logging
from typing import Annotated

import msgspec
from fastapi import APIRouter, HTTPException, Path
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from outwait.web.actors import MakingKeys
from outwait.web.answers import CreatedKey, Keys, Revoked, answer, documented
from outwait.web.auth import KeyMaker, permitted_tenant
from outwait.web.routing import ApiRoute
from outwait.web.services import Services, Shared
from outwait.worker.model.acts import ActKind
from outwait.worker.model.api_keys import PRIORITY_HIGHEST, ApiKey, Scope, made_by
from outwait.worker.model.jobs import TENANT_PATTERN
from outwait.worker.store.access import NewKey

log = logging.getLogger(__name__)

router = APIRouter(prefix="/v1/keys", tags=["keys"], route_class=ApiRoute)

LONGEST = 10 * 365 * 86400
"""Seconds that a key or an overlap may last."""

KeyId = Annotated[str, Path(pattern=r"^[0-9a-f]{8}$", description="The key's id, as in `GET /v1/keys`.")]
Duration = Annotated[float, Field(gt=0, le=LONGEST, allow_inf_nan=False, strict=True)]
Overlap = Annotated[
    float,
    Field(
        ge=0, le=LONGEST, allow_inf_nan=False, strict=True, description="Seconds for which the old key is still valid."
    ),
]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KeyRequest(_Body):
    """A new key. What is left out is as in the key that makes it; nothing may be more than that one has."""

    name: Annotated[str, Field(max_length=60, description="Name of its owner; timelines show it.")]
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=len(Scope), description="What it allows.")]
    tenant: Annotated[str | None, Field(pattern=TENANT_PATTERN, description="Limit it to one tenant's jobs.")] = None
    networks: Annotated[
        list[Annotated[str, Field(max_length=50)]] | None,
        Field(min_length=1, max_length=100, description="Limit it to callers with these addresses, or from networks."),
    ] = None
    priority_max: Annotated[
        int | None,
        Field(ge=5, le=PRIORITY_HIGHEST, strict=True, description="Highest priority of jobs that it enqueues."),
    ] = None
    expires_in: Annotated[Duration | None, Field(description="Seconds for which it is valid.")] = None


class Rotation(_Body):
    """How a key is replaced."""

    overlap: Overlap = 3600


class Revocation(_Body):
    """Which keys are revoked."""

    made: Annotated[bool, Field(strict=True, description="Also those that the key has made, and those have made.")] = (
        False
    )


@router.get("", operation_id="listKeys", responses=documented(Keys))
async def list_keys(shared: Shared, caller: KeyMaker) -> Response:
    """The keys that allow no more than yours, itself among them, oldest first."""
    return answer(Keys(await _covered(shared, caller)))


@router.post("", operation_id="createKey", status_code=201, responses=documented(CreatedKey, 400, 413, 415, status=201))
async def create_key(request: KeyRequest, shared: Shared, caller: KeyMaker, client: MakingKeys) -> Response:
    """Create a key. Its text is in this answer only."""
    created = await shared.access.create(
        request.name,
        request.scopes,
        permitted_tenant(caller, request.tenant),
        ttl_s=request.expires_in,
        networks=caller.networks if request.networks is None else request.networks,
        priority_max=request.priority_max,
        maker=caller,
    )
    await client.note(ActKind.CREATE_KEY, about=f"{created.key.id} {created.key.name}", detail=created.key.rights)
    return _created("key-created", caller, created)


@router.post(
    "/{key_id}/rotate",
    operation_id="rotateKey",
    status_code=201,
    responses=documented(CreatedKey, 400, 404, 413, 415, status=201),
)
async def rotate_key(
    key_id: KeyId, request: Rotation, shared: Shared, caller: KeyMaker, client: MakingKeys
) -> Response:
    """Create a key with the same rights and the same end; the old one ends after `overlap` seconds."""
    created = await shared.access.rotate(key_id, request.overlap, caller)
    if created is None:
        raise _missing(key_id)
    words = f"{created.key.rights}; in place of {key_id}"
    await client.note(ActKind.ROTATE_KEY, about=f"{created.key.id} {created.key.name}", detail=words)
    return _created("key-rotated", caller, created)


@router.post("/{key_id}/revoke", operation_id="revokeKey", responses=documented(Revoked, 400, 404, 413, 415))
async def revoke_key(
    key_id: KeyId, request: Revocation, shared: Shared, caller: KeyMaker, client: MakingKeys
) -> Response:
    """Revoke a key, and every login with it, at once."""
    covered = await _covered(shared, caller)
    if key_id not in {key.id for key in covered}:
        raise _missing(key_id)
    ids = {key_id} | (made_by(covered, key_id) if request.made else set())
    await shared.access.revoke(*ids)
    await client.note(ActKind.REVOKE_KEY, about=" ".join(sorted(ids)))
    log.info("key-revoked", extra={"caller": caller.name, "ids": " ".join(sorted(ids))})
    return answer(Revoked(sorted(ids)))


async def _covered(shared: Services, caller: ApiKey) -> list[ApiKey]:
    return [key for key in await shared.access.all() if caller.covers(key)]


def _created(event: str, caller: ApiKey, created: NewKey) -> Response:
    log.info(event, extra={"caller": caller.name, "id": created.key.id, "owner": created.key.name})
    return answer(CreatedKey(**msgspec.structs.asdict(created.key), key=created.text), 201)


def _missing(key_id: str) -> HTTPException:
    return HTTPException(404, f"no valid API key that allows no more than yours has the id {key_id!r}")
