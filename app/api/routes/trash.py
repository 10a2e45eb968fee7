"""Routes that remove checkpoints and bring them back."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from ...catalog.checkpoints import resolve
from ...catalog.trash import NOT_KEPT, delete_checkpoint, purge_checkpoint, restore
from ...errors import InvalidRequest, NotFound
from ...values.checkpoint import Removal
from ..openapi.problems import OF_A_MODEL, refusals
from ..requests.auth import ADMIN
from ..requests.params import Model, Ref
from ..responses.json import check_write, etag_of, identity_headers, is_fixed, json_answer, nothing
from ..responses.views import CheckpointView
from ..services import ServicesDep, in_turn

router = APIRouter(prefix="/v1/models/{namespace}/{name}/checkpoints", tags=["checkpoints"])


def _version_of(ref: str, method: str) -> int:
    if not is_fixed(ref):
        raise InvalidRequest(
            f"{method} accepts only a version number: {ref!r} may have moved to another checkpoint since your look-up",
            code="moving-ref",
        )
    return int(ref.removeprefix("v"))


@router.delete(
    "/{ref}",
    summary="Delete a checkpoint",
    dependencies=ADMIN,
    status_code=204,
    responses=refusals(*OF_A_MODEL, 409, 507),
)
@in_turn
def remove(
    request: Request,
    services: ServicesDep,
    model: Model,
    ref: Ref,
    purge: Annotated[bool, Query(description="delete it for good, also from the trash")] = False,
) -> Response:
    """The checkpoint goes to the trash; `Stateroom-Purged-At` says until when it can be restored. The ref must be a
    version number: another ref may have moved to another checkpoint.
    """
    version = _version_of(ref, "DELETE")

    def work() -> Removal | None:
        with services.catalog.write(model.namespace) as session:
            try:
                checkpoint = resolve(session, model, ref)
            except NotFound:
                if not purge:
                    raise
                check_write(request, nothing)
                purge_checkpoint(session, model, version)
                return None
            check_write(request, lambda: etag_of(CheckpointView.of(checkpoint)))
            kept = NOT_KEPT if purge else services.trash
            return delete_checkpoint(session, model, version, kept=kept)

    removal = services.room.freeing(work)
    is_kept = removal is not None and removal.purge_at > removal.at
    headers = {"Stateroom-Purged-At": f"{removal.purge_at:%Y-%m-%dT%H:%M:%SZ}"} if removal and is_kept else {}
    return Response(status_code=204, headers=headers)


@router.post(
    "/{ref}/restore",
    summary="Restore a checkpoint from the trash",
    dependencies=ADMIN,
    response_model=CheckpointView,
    responses=refusals(*OF_A_MODEL, 410, 507),
)
@in_turn
def restore_checkpoint(request: Request, services: ServicesDep, model: Model, ref: Ref) -> Response:
    """The ref must be a version number. A checkpoint that is not in the trash stays as it is."""
    version = _version_of(ref, "restore")
    services.room.check(0)
    with services.catalog.write(model.namespace) as session:
        check_write(request, nothing)
        checkpoint = restore(session, model, version)
    return json_answer(request, CheckpointView.of(checkpoint), identity_headers(request, checkpoint, ref))
