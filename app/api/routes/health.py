"""Health, readiness and metrics. Health and readiness are public, because a load balancer has no token."""

import asyncio
from typing import Literal, TypeVar

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from ...concurrency.probe import Probe
from ...errors import StateroomError
from ...version import server_build, server_version
from ..openapi.problems import refusals
from ..requests.auth import EVERYWHERE
from ..services import ServicesDep, in_turn

T = TypeVar("T")

router = APIRouter(tags=["health"])

PUBLIC = frozenset({"/healthz", "/readyz"})
"""The routes that are open to all, by their paths."""


class Health(BaseModel):
    status: str
    version: str
    build: str | None = Field(description="the commit that the server was built from, if its build was told")


class FreeBytes(BaseModel):
    """Free bytes on the devices of the data dir and of the store; null for an object store."""

    data: int
    store: int | None


class Readiness(BaseModel):
    """``degraded``: checkpoints can be read and deleted, but not uploaded."""

    status: Literal["ready", "degraded"]
    uploads: str = Field(description="`accepted`, or `refused: ` and the reason")
    free_bytes: FreeBytes


@router.get("/healthz", summary="Is the process up?")
async def healthz() -> Health:
    """The process is up if it answers."""
    return Health(status="ok", version=server_version(), build=server_build())


@router.get("/readyz", summary="Do the catalog and the store respond?", responses=refusals(503))
async def readyz(services: ServicesDep) -> Readiness:
    """503 names the part that does not respond, within 3 seconds. A full disk is not a 503: it stops only uploads."""
    probes = services.probes
    _, _, (refusal, free, of_store) = await asyncio.gather(
        _answer("catalog", probes.catalog), _answer("store", probes.store), _answer("disk", probes.disks)
    )
    return Readiness(
        status="degraded" if refusal else "ready",
        uploads=f"refused: {refusal}" if refusal else "accepted",
        free_bytes=FreeBytes(data=free[0].nbytes, store=of_store[-1].nbytes if of_store else None),
    )


async def _answer(part: str, probe: Probe[T]) -> T:
    try:
        return await probe.ask()
    except TimeoutError:
        reason = ""
    except StateroomError as error:
        reason = f": {error.detail}"
    raise HTTPException(503, f"The {part} does not respond{reason or '.'}", {"Retry-After": "5"})


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    dependencies=EVERYWHERE,
    response_class=PlainTextResponse,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
@in_turn
def metrics(services: ServicesDep) -> Response:
    """Metrics of all workers together; the totals of the store are counted every half minute."""
    text = services.metrics.text(services.catalog, services.room, services.store.room)
    return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)
