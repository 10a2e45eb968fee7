"""Routes that make links: signed download URLs, for tools that send no headers."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field

from ...access.signatures import LONGEST, Resource
from ...deliver.download import Download
from ...select.query import parse_device
from ...values.checkpoint import Checkpoint, ModelName
from ..openapi.problems import OF_A_DOWNLOAD, refusals
from ..requests.auth import READ, SIGNATURE, Caller
from ..requests.params import Model, Ref, Run
from ..requests.selections import SelectedDep
from ..responses.json import NO_STORE, check_write, identity_headers, json_answer, nothing
from ..responses.views import checkpoint_url
from ..services import Services, ServicesDep

router = APIRouter(prefix="/v1/models/{namespace}/{name}/checkpoints/{ref}/links", tags=["links"])

_NOT_SIGNED = frozenset({"run", "expires"})
"""Parameters that are used only to make the link."""


class LinkView(BaseModel):
    """A download that needs no token until `expires_at`. Use `url`, which is relative, unchanged."""

    url: str
    expires_at: datetime = Field(description="never later than the expiry of the token that made the link")


@dataclass(frozen=True, slots=True)
class Asked:
    """The common parameters of requests for a link."""

    request: Request
    services: Services
    model: ModelName
    ref: str
    run: str | None
    caller: Caller
    lifetime: timedelta

    async def link(self, route: str, planned: Callable[[Checkpoint], Download]) -> Response:
        """Make a link to the download that ``planned``, which may block, returns. An impossible one is refused now."""
        signer = await self.services.access.signer(self.caller)
        check_write(self.request, nothing)
        checkpoint = await self.services.find(self.model, self.ref, self.run)
        download = await self.services.plan(self.request, planned, checkpoint)
        path = f"{checkpoint_url(checkpoint.model, checkpoint.version)}/{route}/{download.filename}"
        query = [pair for pair in self.request.query_params.multi_items() if pair[0] not in _NOT_SIGNED]
        signature, expires_at = signer.sign(Resource(path, query), self.lifetime)
        url = f"{path}?{urlencode([*query, (SIGNATURE, str(signature))], quote_via=quote)}"
        headers = {**identity_headers(self.request, checkpoint, self.ref), "Cache-Control": NO_STORE}
        return json_answer(self.request, LinkView(url=url, expires_at=expires_at), headers)


async def asked(
    request: Request,
    services: ServicesDep,
    model: Model,
    ref: Ref,
    caller: Caller,
    run: Run = None,
    expires: Annotated[
        int, Query(ge=1, le=int(LONGEST.total_seconds()), description="lifetime of the link, in seconds")
    ] = 3600,
) -> Asked:
    return Asked(request, services, model, ref, run, caller, timedelta(seconds=expires))


Link = Annotated[Asked, Depends(asked)]


@router.post(
    "/state_dict",
    summary="Link to a state_dict",
    dependencies=READ,
    response_model=LinkView,
    responses=refusals(*OF_A_DOWNLOAD),
)
async def state_dict(link: Link, part: SelectedDep) -> Response:
    """Takes the query parameters of the download."""
    return await link.link("state_dict", lambda one: part.of(one, link.services.deliver, link.lifetime))


@router.post(
    "/file",
    summary="Link to a checkpoint",
    dependencies=READ,
    response_model=LinkView,
    responses=refusals(*OF_A_DOWNLOAD),
)
async def file(
    link: Link,
    device: Annotated[str | None, Query(description="device that `torch.load` loads to; left out: as saved")] = None,
    weights_only: Annotated[
        bool, Query(description="false: also files that need `torch.load(weights_only=False)`")
    ] = True,
) -> Response:
    """Takes the query parameters of the download."""
    location = None if device is None else parse_device(device)
    return await link.link("file", lambda one: link.services.deliver.file(one, location, weights_only=weights_only))


@router.post(
    "/original",
    summary="Link to the upload",
    dependencies=READ,
    response_model=LinkView,
    responses=refusals(*OF_A_DOWNLOAD),
)
async def original(link: Link) -> Response:
    """Links to the uploaded file, byte for byte."""
    return await link.link("original", link.services.deliver.original)
