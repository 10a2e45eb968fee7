"""Whether the process is up, and whether it can do its work. Public: a load balancer has no token."""

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from ...errors import StateroomError
from ..services import Parts

router = APIRouter(tags=["health"])


class Health(BaseModel):
    status: str


@router.get("/healthz", summary="Is the process up?")
async def healthz() -> Health:
    return Health(status="ok")


@router.get("/readyz", summary="Do the catalog and the store answer?", responses={503: {"description": "One does not"}})
def readyz(services: Parts) -> Health:
    for part, ping in (("catalog", services.catalog.ping), ("store", services.store.ping)):
        try:
            ping()
        except StateroomError as error:
            raise HTTPException(503, f"The {part} does not answer: {error.detail}", {"Retry-After": "5"}) from error
    return Health(status="ready")
