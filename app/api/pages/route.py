"""The class of routes that answer with pages: an error is a page, too, and a missing token leads to the sign-in."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from ...errors import Cancelled
from ..problems import ANSWERED, Problem, of_error
from .addresses import Addresses, path_of
from .templates import page

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class PageRoute(APIRoute):
    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except Cancelled:
                raise
            except ANSWERED as error:
                problem = of_error(error, request)
                if problem.status == 401 and "Authorization" not in request.headers:
                    return to_sign_in(request)
                return _page_of(request, problem)

        return handled


def to_sign_in(request: Request) -> Response:
    """Redirect to the sign-in, which leads back."""
    location = Addresses.of(request).sign_in(path_of(request))
    return Response(status_code=303, headers={"Location": location, "Cache-Control": "no-store"})


def _page_of(request: Request, problem: Problem) -> Response:
    headers = {"Cache-Control": "no-store", **problem.headers}
    return page(request, "problem.html", status=problem.status, headers=headers, problem=problem)
