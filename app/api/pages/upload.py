"""The page that uploads files from a browser."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from ..requests.auth import WRITE_PAGE, Caller
from .route import PageRoute
from .templates import page

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/upload", dependencies=WRITE_PAGE)
async def upload_page(request: Request, caller: Caller, model: Annotated[str, Query(max_length=300)] = "") -> Response:
    """The form of an upload; the page's script sends the files one after another."""
    own = caller.namespaces or ()
    suggested = model or (f"{next(iter(own))}/" if len(own) == 1 else "")
    return page(request, "upload.html", model=suggested)
