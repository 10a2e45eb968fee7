"""What a handler works with: the parts that the composition root made, reached by one dependency."""

import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from ..catalog import Catalog
from ..deliver.service import Deliver
from ..ingest import Ingest
from ..store.pack_store import PackStore


class Streams:
    """How many downloads are being sent by this process; they share the loop, so they share its patience."""

    def __init__(self) -> None:
        self.active = 0

    @contextmanager
    def joined(self) -> Iterator[None]:
        self.active += 1
        try:
            yield
        finally:
            self.active -= 1


@dataclass(frozen=True, slots=True)
class Services:
    """``token`` is the one all-powerful token, None where everybody may do everything."""

    catalog: Catalog
    store: PackStore
    ingest: Ingest
    deliver: Deliver
    streams: Streams
    token: str | None

    def accepts(self, token: str | None) -> bool:
        """Whether this is the token; takes as long for a nearly right one as for a wrong one."""
        if self.token is None:
            return True
        return token is not None and hmac.compare_digest(token.encode(), self.token.encode())


async def services_of(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


Parts = Annotated[Services, Depends(services_of)]
