"""The state of a selection while a person types it: the keys it matches, the size of its file, and lines to copy.

Patterns are matched by the code that serves downloads, so that what is shown is what is sent.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from ...access.grants import OPEN
from ...deliver.service import Deliver
from ...errors import Gone, SelectionError
from ...select.keys import select_leaves
from ...select.query import StateDictQuery
from ...values.checkpoint import Checkpoint
from ...values.manifest import Manifest, Tensor
from ..requests.auth import PAGE, Caller
from ..requests.params import Model, Ref, Run
from ..requests.selections import Selection
from ..services import ServicesDep
from .lines import lines_of
from .templates import packed
from .tensors import tensors_of

router = APIRouter(include_in_schema=False)


@router.get("/models/{namespace}/{name}/checkpoints/{ref}/selection.json", dependencies=PAGE)
async def selection(
    request: Request,
    services: ServicesDep,
    caller: Caller,
    model: Model,
    ref: Ref,
    query: Selection,
    sized: Annotated[
        bool, Query(description="plan the file, for its size: that takes long for ten thousand keys")
    ] = False,
    base: Annotated[str, Query(max_length=500, description="the server's address as the browser knows it")] = "",
    run: Run = None,
) -> Response:
    """Describe a selection. One that cannot be served is described, too: ``problem`` is why."""
    checkpoint = await services.find(model, ref, run)
    address = (base or str(request.base_url)).rstrip("/")
    document = await services.plan(request, _described, services.deliver, checkpoint, query, sized=sized)
    document |= asdict(lines_of(checkpoint, query, address, with_token=caller != OPEN))
    body = json.dumps(document, separators=(",", ":")).encode()
    return packed(request, body, "application/json", {"Cache-Control": "private, no-cache"})


def _described(deliver: Deliver, checkpoint: Checkpoint, query: StateDictQuery, *, sized: bool) -> dict[str, Any]:
    """Return the matched tensors, as runs of their numbers in ``tensors.json``, and the file's size if ``sized``."""
    matched: Sequence[int] = ()
    size: int | None = None
    problem: str | None = None
    try:
        manifest = deliver.manifest(checkpoint)
        matched = _matched(manifest, tensors_of(manifest, query.component), query)
        size = deliver.state_dict(checkpoint, query).size if sized else None
    except (SelectionError, Gone) as error:
        problem = error.detail
    return {
        "matched": list(_runs(matched)),
        "count": len(matched),
        "size": size,
        "problem": problem,
    }


def _matched(manifest: Manifest, tensors: Sequence[Tensor], query: StateDictQuery) -> Sequence[int]:
    """Return the numbers of tensors that the patterns pick. A state_dict is filtered by its own keys, which may hold
    more than one tensor.
    """
    if not tensors:
        return ()
    component = tensors[0].component
    by_key = component is not None and manifest.components[component].kind == "state_dict"
    keys = [str(tensor.path[0]) if by_key else tensor.key for tensor in tensors]
    return select_leaves(keys, StateDictQuery(include=query.include, exclude=query.exclude))


def _runs(numbers: Sequence[int]) -> Iterator[int]:
    """Yield the first number of each run of successive numbers, and then the run's length."""
    start = before = None
    for number in numbers:
        if start is None or before is None or number != before + 1:
            if start is not None and before is not None:
                yield from (start, before - start + 1)
            start = number
        before = number
    if start is not None and before is not None:
        yield from (start, before - start + 1)
