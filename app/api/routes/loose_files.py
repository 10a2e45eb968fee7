"""Routes for loose files: files that are written by name, one by one, before a checkpoint is made of them."""

import base64
import json
import zlib
from datetime import datetime
from typing import Annotated

from anyio import from_thread
from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from ...catalog import loose_files
from ...concurrency.cancellation import current
from ...errors import BadFolder, InvalidRequest, NotFound, TooLarge
from ...values.digest import BLOCK_DIGEST_SIZE, BLOCK_SIZE
from ...values.folder import check_path
from ...values.loose_file import LooseFile, NewLooseFile
from ...values.split import MAX_STORAGES, Split
from ..openapi.problems import OF_A_BODY, refusals
from ..requests.auth import READ, WRITE, judge_again
from ..requests.bodies import LARGE, documented_body, json_body
from ..requests.params import Cursor, Model
from ..responses.json import NO_STORE, check_write, json_answer, nothing
from ..services import ServicesDep, in_turn
from .negotiated import BlockDigest, Stretch

router = APIRouter(prefix="/v1/loose-files/{namespace}/{name}", tags=["loose files"])

MAX_RECIPE = 16 * 1024 * 1024
"""Most bytes of a recipe, compressed."""

_CRC32 = 2**32


class Recipe(BaseModel):
    """The bytes of a file: its storages, and the rest of it. Offsets and sizes are bytes."""

    model_config = ConfigDict(extra="forbid")

    size: int = Field(ge=0, description="size of the file", examples=[4_194_400])
    storages: list[Stretch] = Field(
        max_length=MAX_STORAGES,
        description="`[start, end)` of every storage of more than 4096 bytes, in file order",
    )
    blocks: list[BlockDigest] = Field(description="BLAKE3 digests, in hex, of the 16 MiB blocks of each storage")
    crc32s: list[int] = Field(max_length=MAX_STORAGES, description="the CRC32 of each storage")
    rest: list[str] = Field(
        description="the bytes between the storages, joined: texts of base64, each of at most 65,000 characters"
    )


class NewFile(Recipe):
    """A file to be written. Its storages have been staged."""

    writer: str = Field(min_length=1, max_length=64, description="a name of the process that writes the file")


class LooseFileView(BaseModel):
    """A loose file. Numbers ascend with time; `replaced` is the newest file under the path by another writer."""

    number: int
    path: str
    bytes: int
    written_at: datetime
    replaced: int | None

    @classmethod
    def of(cls, file: LooseFile) -> "LooseFileView":
        return cls(
            number=file.number, path=file.path, bytes=file.size, written_at=file.written_at, replaced=file.replaced
        )


class LooseFilePage(BaseModel):
    """Loose files, sorted by path."""

    items: list[LooseFileView]
    next: str | None = Field(description="the cursor of the next page")
    newest: int = Field(description="number of the newest change there, removals included; 0 without any")


Under = Annotated[str, Query(description="the path of a file, or of a folder", examples=["run-7/step-900"])]
_PATH = Query(description="the path of the file", examples=["run-7/step-900/__0_0.distcp"])
_NUMBER = Path(ge=1, lt=2**63, description="the number of the file", examples=[12])


@router.put(
    "",
    summary="Write a loose file",
    dependencies=WRITE,
    status_code=201,
    response_model=LooseFileView,
    responses=refusals(*OF_A_BODY, 409, 507),
    openapi_extra=documented_body(NewFile),
)
async def write_file(request: Request, services: ServicesDep, model: Model, path: Annotated[str, _PATH]) -> Response:
    """A file under the same path is replaced. Loose files are kept for a day."""

    def work() -> LooseFile:
        new = _checked(path, body.read(NewFile))
        services.room.check(len(new.recipe or b""))
        from_thread.run(judge_again, request, services)  # the request may have waited long for this thread
        with services.catalog.write(model.namespace) as session:
            return loose_files.write(session, model, new)

    _check("path", path)
    check_write(request, nothing)
    async with json_body(request, services, LARGE) as body:
        written = await services.plans.run(work)
    return json_answer(request, LooseFileView.of(written), {"Cache-Control": NO_STORE}, status=201)


def _checked(path: str, new: NewFile) -> NewLooseFile:
    """Raises InvalidRequest ``bad-split``, and TooLarge."""
    try:
        length = sum(len(base64.b64decode(text, validate=True)) for text in new.rest)
    except ValueError:
        raise InvalidRequest("`rest` must be texts of base64", code="bad-split") from None
    expected = new.size - sum(span.length for span in new.storages)
    if length != expected:
        raise InvalidRequest(f"`rest` has {length:,} bytes; {expected:,} are between the storages", code="bad-split")
    if len(new.crc32s) != len(new.storages) or any(not 0 <= each < _CRC32 for each in new.crc32s):
        raise InvalidRequest("`crc32s` must have a CRC32, from 0 to 2**32 - 1, for each storage", code="bad-split")
    if new.size:
        of_frame = bytes(BLOCK_DIGEST_SIZE * max(1, -(-expected // BLOCK_SIZE)))
        Split(new.size, new.storages, of_frame + b"".join(new.blocks))  # raises for storages or blocks that do not fit
    elif new.storages or new.blocks:
        raise InvalidRequest("an empty file has no storages", code="bad-split")
    text = _text(new).encode()
    recipe = zlib.compress(text)
    if len(recipe) > MAX_RECIPE:
        raise TooLarge(
            f"the bytes beside the storages have {len(recipe):,}, compressed; at most {MAX_RECIPE:,} are kept"
        )
    return NewLooseFile(path, new.size, recipe, len(text), new.writer)


def _text(new: NewFile) -> str:
    """Return the JSON of a Recipe."""
    storages = [(span.start, span.end) for span in new.storages]
    blocks = [block.hex() for block in new.blocks]
    recipe = {"size": new.size, "storages": storages, "blocks": blocks, "crc32s": new.crc32s, "rest": new.rest}
    return json.dumps(recipe, separators=(",", ":"))


@router.get(
    "",
    summary="List loose files",
    dependencies=READ,
    response_model=LooseFilePage,
    responses=refusals(422, 503),
)
@in_turn
def list_files(
    request: Request,
    services: ServicesDep,
    model: Model,
    under: Under = "",
    limit: Annotated[int, Query(ge=1, le=1_000)] = 1_000,
    cursor: Cursor = None,
) -> Response:
    """The file with this path, or all files in the folder with this path; without one, all of the model."""
    _check("under", under or "any")
    _check("cursor", cursor or "any")
    with services.catalog.read() as session:
        newest = loose_files.newest(session, model, under)
        found = loose_files.listed(session, model, under, cursor or "", limit + 1)
    items = [LooseFileView.of(file) for file in found[:limit]]
    page = LooseFilePage(items=items, next=items[-1].path if len(found) > limit else None, newest=newest)
    return json_answer(request, page, {"Cache-Control": NO_STORE})


@router.get(
    "/{number}",
    summary="Get the recipe of a loose file",
    dependencies=READ,
    response_model=Recipe,
    responses=refusals(404, 422, 503),
)
async def recipe(request: Request, services: ServicesDep, model: Model, number: Annotated[int, _NUMBER]) -> Response:
    """The bytes of a file, its storages by their digests. It never changes: another file has another number."""

    def size() -> int | None:
        with services.catalog.read() as session:
            return loose_files.recipe_bytes(session, model, number)

    def find() -> bytes | None:
        with services.catalog.read() as session:
            found = loose_files.recipe(session, model, number)
        return None if found is None else zlib.decompress(found)

    expected = await services.asks.run(size)
    async with services.streams.memory.reserved(2 * (expected or 0), current().owner):
        text = await services.plans.run(find)
    if text is None:
        detail = f"{model} has no loose file {number}: it was replaced or removed, or is older than a day"
        raise NotFound(detail, code="loose-file-not-found")
    return json_answer(request, text, {"Cache-Control": NO_STORE})


@router.delete(
    "",
    summary="Remove loose files",
    dependencies=WRITE,
    status_code=204,
    response_class=Response,
    responses=refusals(404, 422, 503, 507),
)
@in_turn
def remove_files(
    request: Request,
    services: ServicesDep,
    model: Model,
    under: Under,
    upto: Annotated[int | None, Query(ge=1, lt=2**63, description="only files with at most this number")] = None,
) -> Response:
    """Remove the file with this path, or all files in the folder with this path."""
    _check("under", under)
    check_write(request, nothing)

    def work() -> int:
        with services.catalog.write(model.namespace) as session:
            return loose_files.remove(session, model, under, upto)

    if not services.room.freeing(work):
        raise NotFound(f"{model} has no loose file at {under[:200]!r}", code="loose-file-not-found")
    return Response(status_code=204)


def _check(name: str, path: str) -> None:
    """Raises InvalidRequest ``invalid-value`` for a path that no file can have."""
    try:
        check_path(path)
    except BadFolder as error:
        raise InvalidRequest(f"`{name}`: {error.detail}", code="invalid-value") from None
