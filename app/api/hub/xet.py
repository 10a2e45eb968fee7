"""Routes by which default installations of the Hub's client send large files ahead of a commit: uploads by Xet.

A client asks for a token, sends the chunks of its files in xorbs, and then shards, which say of which chunks each file
is made. The server assembles the files at once, and keeps them like those that are sent by LFS. Clients remember what
they have sent to a URL for weeks, and do not send it there again: so each token comes with a URL of its own, and chunks
can be forgotten. Reference: https://huggingface.co/docs/xet
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from ...catalog import hub, namespaces, xorbs
from ...concurrency.cancellation import current
from ...formats.xet.shard import ShardFile, ShardReader
from ...formats.xet.xorb import MAX_BODY, XorbDecoder, pack_ends
from ...ingest.body import Chunks
from ...ingest.receive import held_by
from ...values.checkpoint import ModelName
from ...values.hub import KeptXorb, Xorb
from ..admission import check_size, declared_size
from ..requests.auth import WRITE_PAGE, XET_UPLOAD, Caller, judge_again, xet_resource
from ..requests.bodies import RequestBody
from ..requests.params import Model
from ..services import Services, ServicesDep
from ..threads import unless_gone
from .assemble import Assembly, check_terms
from .head import head_of
from .lfs import LIFETIME
from .route import HubRoute, answer

router = APIRouter(route_class=HubRoute, include_in_schema=False)

MAX_SHARD = 96 * 1024 * 1024
"""Most bytes of a shard. Clients begin another one after 64 MiB."""

PIECE = 1024 * 1024
"""Bytes of a body that are decoded at a time."""

SessionId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]
Hash = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]
CAS = "/{namespace}/{name}.git/xet/{session}"


@router.get("/api/models/{namespace}/{name}/xet-write-token/{revision}", dependencies=WRITE_PAGE)
async def write_token(request: Request, services: ServicesDep, caller: Caller, model: Model, revision: str) -> Response:
    """Begin a session: tell the URL to send to, and the token to show there."""
    await services.plan(request, head_of, services, model)
    signer = await services.access.signer(caller)
    signature, ends = signer.sign(xet_resource(str(model)), LIFETIME)
    url = f"{str(request.base_url).rstrip('/')}/{model}.git/xet/{secrets.token_hex(16)}"
    return answer({"casUrl": url, "accessToken": str(signature), "exp": int(ends.timestamp())})


@router.post(CAS + "/v1/xorbs/default/{xorb_hash}", dependencies=XET_UPLOAD)
async def xorb(request: Request, services: ServicesDep, model: Model, session: SessionId, xorb_hash: Hash) -> Response:
    """Keep the chunks of a xorb, unpacked, for the shards to come. Its hash is only a name: files are verified."""
    size = declared_size(request, MAX_BODY)
    await _check_room(services, model, size or 0)
    decoder = XorbDecoder()
    async with services.streams.memory.reserved(held_by(None) + 2 * PIECE, current().owner):
        plain = _decoded(RequestBody(request, MAX_BODY), decoder)
        upload = await services.ingest.receive(Chunks(plain), None)
    kept = Xorb(session, xorb_hash, decoder.ends[-1], len(decoder.ends))
    stage = partial(services.ingest.stage_xorb, upload, model.namespace, kept)
    is_new = await services.finish(request, upload, stage, partial(judge_again, request, services))
    return answer({"was_inserted": is_new})


async def _decoded(body: RequestBody, decoder: XorbDecoder) -> AsyncIterator[bytes]:
    """Yield the plain bytes of all chunks, then the positions after them."""
    async for piece in _pieces(body):
        decoder.feed(piece)
        while plain := await asyncio.to_thread(decoder.read):
            yield plain
    decoder.finish()
    yield pack_ends(decoder.ends)


async def _pieces(body: RequestBody) -> AsyncIterator[bytearray]:
    buffer = bytearray(PIECE)
    while count := await body.readinto(memoryview(buffer)):
        yield buffer[:count]


async def _check_room(services: Services, model: ModelName, nbytes: int) -> None:
    def check() -> None:
        with services.catalog.read() as s:
            hub.check_room(s, model.namespace, nbytes)

    await services.asks.run(check)


@router.post(CAS + "/v1/shards", dependencies=XET_UPLOAD)
async def shard(request: Request, services: ServicesDep, model: Model, session: SessionId) -> Response:
    """Assemble the files of a shard, and keep each that has the SHA-256 that the shard says."""
    size = declared_size(request, MAX_SHARD)
    with services.admission.taken():
        async with services.streams.memory.reserved(held_by(None) + (size or MAX_SHARD), current().owner):
            reader = ShardReader()
            async for piece in _pieces(RequestBody(request, MAX_SHARD)):
                await asyncio.to_thread(reader.feed, piece)
            files, kept = await services.plan(request, _planned, services, model, session, reader.finish())
            assembly = Assembly(services.store, kept)
            for file in files:
                await _assemble(request, services, model, assembly, file)

    def use() -> None:
        with services.catalog.write(model.namespace) as w:
            xorbs.use(w, model.namespace, session, kept)

    if kept:
        await services.asks.run(use)
    return answer({"result": 1})


def _planned(
    services: Services, model: ModelName, session: str, files: Sequence[ShardFile]
) -> tuple[list[ShardFile], dict[str, KeptXorb]]:
    """Return the files that are not kept yet, and the xorbs that they are made of. Blocks.

    Raises InvalidRequest for terms that cannot be, QuotaExceeded and TooLarge.
    """
    asked = {file.sha256: file for file in files}
    with services.catalog.read() as s:
        staged = hub.staged(s, model.namespace, asked)
        missing = [file for file in asked.values() if file.sha256 not in staged]
        for file in missing:
            check_size(file.size, services.admission.max_bytes)
        # The xorbs themselves do not count: the files take their place.
        new_bytes = sum(file.size for file in missing) + hub.staged_bytes(s, model.namespace)
        namespaces.check_room(s, model.namespace, new_bytes)
        hashes = {term.xorb for file in missing for term in file.terms()}
        kept = xorbs.kept(s, model.namespace, session, hashes)
    check_terms(missing, kept)
    return missing, kept


async def _assemble(
    request: Request, services: Services, model: ModelName, assembly: Assembly, file: ShardFile
) -> None:
    body = Chunks(assembly.read(file))
    upload = await unless_gone(request, services.ingest.receive(body, file.size, sha256=file.sha256))
    stage = partial(services.ingest.stage, upload, model.namespace, file.sha256)
    await services.finish(request, upload, stage, partial(judge_again, request, services))
