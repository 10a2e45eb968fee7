"""Addresses in a page. All are relative, so pages work below any path that a proxy puts before them."""

from dataclasses import dataclass
from urllib.parse import quote

from fastapi import Request

from ...values.checkpoint import ModelName
from ..requests.paths import path_segment
from .static import VERSION


@dataclass(frozen=True, slots=True)
class Addresses:
    """The links of one page. ``root`` leads from the page to the start page: ``../../`` or so."""

    root: str

    @classmethod
    def of(cls, request: Request) -> "Addresses":
        """Return the links of the requested page. A ``%2F`` is no step down, neither for us nor for a browser."""
        return cls("../" * (request.scope["raw_path"].count(b"/") - 1) or "./")

    def model(self, name: ModelName) -> str:
        return f"{self.root}models/{name}"

    def checkpoint(self, name: ModelName, ref: int | str) -> str:
        return f"{self.model(name)}/checkpoints/{path_segment(str(ref))}"

    def below(self, name: ModelName, page: str) -> str:
        """Return the address of a page of a model: its ``trash`` or its ``events``."""
        return f"{self.model(name)}/{page}"

    def diff(self, name: ModelName, base: int | str, other: int | str) -> str:
        """Return the page that compares two checkpoints. ``other`` may be of another model: ``ns/name@ref``."""
        return f"{self.model(name)}/diff/{path_segment(str(base))}/{path_segment(str(other))}"

    def api(self, name: ModelName, rest: str = "") -> str:
        """Return the address of a model in the HTTP API, or of something below it."""
        return f"{self.root}v1/models/{name}{rest}"

    def static(self, path: str) -> str:
        return f"{self.root}static/{VERSION}/{path}"

    def docs(self) -> str:
        return f"{self.root}docs"

    def sign_in(self, after: str) -> str:
        """Return the address of the sign-in page, which leads to the path ``after``, with its query."""
        return f"{self.root}sign-in?next={quote(after, safe='/')}"


def path_of(request: Request) -> str:
    """Return the path and the query that were requested, as they were sent."""
    query = request.scope["query_string"].decode("latin-1")
    path: str = request.scope["raw_path"].decode("latin-1")
    return f"{path}?{query}" if query else path
