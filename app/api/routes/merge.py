"""Merges: a new checkpoint that is computed from the state_dicts of others."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from anyio import from_thread
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from ...access.grants import Grant
from ...catalog import namespaces
from ...catalog.checkpoints import resolve
from ...concurrency.cancellation import current
from ...errors import DamagedBlob, InvalidRequest, KeyInUse, NotFound, PackMissing
from ...merge.recipe import MAX_SOURCES, Recipe, recipe_of
from ...merge.service import Prepared, held_by, prepare
from ...values.checkpoint import (
    Checkpoint,
    CheckpointName,
    Fields,
    Merge,
    MergeMethod,
    MergeSource,
    ModelName,
    own_parent,
)
from ..admission import IdempotencyKey, check_size
from ..http1.body_reader import give_up_with_the_client
from ..openapi.problems import OF_A_BODY, OF_A_MODEL, refusals
from ..requests.auth import WRITE, Caller, judge_again
from ..requests.bodies import JsonBodyDep, documented_body
from ..requests.params import Model
from ..requests.upload_fields import PARAMETERS, parse_fields
from ..responses.json import check_write, nothing
from ..responses.views import CheckpointView
from ..services import Services, ServicesDep
from ..threads import unless_gone
from .inside import checkpoint_named
from .uploads import check_origins, counted, stored_answer

router = APIRouter(prefix="/v1/models/{namespace}/{name}", tags=["checkpoints"])


class MergedFrom(BaseModel):
    """A checkpoint to merge, and its weight."""

    model_config = ConfigDict(extra="forbid")

    ref: str = Field(examples=["11"], description="a ref of this model, or `namespace/name@ref`")
    weight: float | None = Field(default=None, examples=[0.5], allow_inf_nan=False)


class MergeRequest(BaseModel):
    """The checkpoints to merge, the oldest first, and how."""

    model_config = ConfigDict(extra="forbid")

    of: list[str | MergedFrom] = Field(
        max_length=MAX_SOURCES, description="refs, or refs with weights", examples=[["11", "12"]]
    )
    component: str | None = Field(
        default=None, description="the state_dict to merge; left out: the default one of each checkpoint"
    )
    method: MergeMethod = Field(default="average", description="how elements are merged")
    decay: float | None = Field(
        default=None, description="of method `ema`: the part that the result keeps at each further checkpoint"
    )
    normalize: bool | None = Field(
        default=None, description="of method `linear`: divide weights that do not sum to 1 by their sum, or do not"
    )
    from_run: str | None = Field(default=None, description="look up refs such as `latest` in this run")

    def sources(self) -> list[MergedFrom]:
        return [MergedFrom(ref=each) if isinstance(each, str) else each for each in self.of]

    def recipe(self) -> Recipe:
        """Raise InvalidRequest if the fields contradict each other."""
        weights = [each.weight for each in self.sources()]
        if not weights:
            raise InvalidRequest("of: name at least one checkpoint", code="invalid-value")
        return recipe_of(self.method, weights, self.decay, normalize=self.normalize)


@dataclass(frozen=True, slots=True)
class Asked:
    """A merge that a request asks for, with the checkpoints that it is made of."""

    request: MergeRequest
    recipe: Recipe
    sources: list[Checkpoint]

    def merge(self, component: str | None) -> Merge:
        names = [CheckpointName(source.model, source.version) for source in self.sources]
        pairs = zip(names, self.recipe.weights, strict=True)
        return Merge(
            self.request.method,
            tuple(MergeSource(name, weight) for name, weight in pairs),
            component,
            self.request.decay,
        )


@router.post(
    "/merge",
    summary="Merge checkpoints",
    dependencies=WRITE,
    status_code=201,
    response_model=CheckpointView,
    responses=refusals(*OF_A_BODY, *OF_A_MODEL, 409, 410, 507),
    openapi_extra=PARAMETERS | documented_body(MergeRequest),
)
async def merge(
    request: Request, services: ServicesDep, caller: Caller, model: Model, body: JsonBodyDep, key: IdempotencyKey
) -> Response:
    """Make a checkpoint of the average, or of another combination, of the state_dicts of others. The query has the
    fields of an upload.
    """
    fields = replace(parse_fields(request.query_params.multi_items()), idempotency_key=key)
    check_write(request, nothing)
    give_up_with_the_client(request.scope)
    await check_origins(request, services, fields)
    wanted = await services.asks.run(partial(body.read, MergeRequest))
    made, replayed = await counted(services, _merged(request, services, caller, model, wanted, fields))
    return stored_answer(request, services, made, replayed=replayed)


async def _merged(
    request: Request, services: Services, caller: Grant, model: ModelName, wanted: MergeRequest, fields: Fields
) -> tuple[Checkpoint, bool]:
    """Return the checkpoint, and whether an earlier request with this key made it."""
    recipe, key = wanted.recipe(), fields.idempotency_key
    if key is not None and (first := await services.uploaded_as(model, key)) is not None:
        return _same(first, wanted, recipe), True
    sources = await services.asks.run(partial(_find, services, caller, model, wanted))
    asked = Asked(wanted, recipe, sources)
    with services.admission.taken():
        async with services.streams.memory.reserved(held_by(sources), current().owner):
            prepared = await services.plan(
                request,
                prepare,
                services.deliver,
                sources,
                wanted.component,
                recipe,
                is_slerp=wanted.method == "slerp",
            )
            check_size(prepared.size, services.admission.max_bytes)
            await services.asks.run(partial(_check_quotas, services, model, prepared.size))
            fields = replace(fields, merge=asked.merge(prepared.component))
            async with services.room.promised(prepared.size) as promise:
                work = partial(_make, request, services, model, asked, prepared, fields, promise.kept)
                try:
                    return await unless_gone(request, services.long_plans.run(work)), False
                except KeyInUse:
                    first = None if key is None else await services.uploaded_as(model, key)
                    if first is None:  # and deleted since
                        raise
                    return _same(first, wanted, recipe), True


def _find(services: Services, caller: Grant, model: ModelName, wanted: MergeRequest) -> list[Checkpoint]:
    """Resolve the refs. Raises NotFound, and InvalidRequest for a checkpoint that is named twice."""
    found: dict[int, str] = {}
    sources = []
    with services.catalog.read() as session:
        for each in wanted.sources():
            checkpoint = resolve(session, *checkpoint_named(each.ref, model, caller), wanted.from_run)
            if checkpoint.id in found:
                detail = f"of: {found[checkpoint.id][:100]!r} and {each.ref[:100]!r} are both {_name(checkpoint)}"
                raise InvalidRequest(f"{detail}: name it once", code="invalid-value")
            found[checkpoint.id] = each.ref
            sources.append(checkpoint)
    return sources


def _check_quotas(services: Services, model: ModelName, size: int) -> None:
    with services.catalog.read() as session:
        namespaces.check_room(session, model.namespace, size)


def _make(
    request: Request,
    services: Services,
    model: ModelName,
    asked: Asked,
    prepared: Prepared,
    fields: Fields,
    on_stored: Callable[[int], None],
) -> Checkpoint:
    """Compute the file, and store it as the next checkpoint. Blocks."""
    try:
        upload = services.ingest.make(prepared.chunks(), on_stored, own_parent(model, fields.parent))
    except (DamagedBlob, PackMissing):
        _check_sources(services, asked)
        raise
    try:
        from_thread.run(judge_again, request, services)  # the token may have been revoked meanwhile
    except BaseException:
        services.ingest.discard(upload)
        raise
    return services.ingest.commit(upload, model, fields)


def _check_sources(services: Services, asked: Asked) -> None:
    """Raise NotFound if a source was deleted meanwhile, which is why its bytes are not there."""
    with services.catalog.read() as session:
        for source in asked.sources:
            try:
                resolve(session, source.model, str(source.version))
            except NotFound:
                raise NotFound(
                    f"{_name(source)} was deleted while it was merged; nothing is stored", code="checkpoint-not-found"
                ) from None


def _same(first: Checkpoint, wanted: MergeRequest, recipe: Recipe) -> Checkpoint:
    """Return the checkpoint that a key made before. Raises InvalidRequest if it is none of such a merge."""
    merge = first.merge
    if merge is None or (merge.method, merge.decay) != (wanted.method, wanted.decay):
        raise _reused(first)
    if tuple(source.weight for source in merge.sources) != recipe.weights:
        raise _reused(first)
    return first


def _reused(first: Checkpoint) -> InvalidRequest:
    return InvalidRequest(
        f"this Idempotency-Key was used for something else, {_name(first)}: use a new key for every merge, and the "
        "same key only for its retries",
        code="idempotency-key-reused",
    )


def _name(checkpoint: Checkpoint) -> str:
    return f"{checkpoint.model}@{checkpoint.version}"
