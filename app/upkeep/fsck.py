"""The consistency check of catalog and store. It runs beside a server and, without ``mark``, changes nothing.

Servers write meanwhile, so each suspect is checked again, in an order in which a true finding stays. A pack is sealed
after its bytes exist and unsealed before they are deleted. The row of a pack exists before its first byte and after its
last. The blobs of a checkpoint stay as long as its row. The row of a moved blob has its new place.
"""

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from ..catalog import Catalog, audit, audit_counters, damage
from ..catalog.audit import BlobRow, CheckpointRow, PackRow
from ..errors import PackMissing, StoreError
from ..formats.manifest_json import decode
from ..store import PackStore, StoredPack
from ..store.digests import crc32, digest_of_blocks
from ..store.keys import area_of
from ..store.verified import verified_blocks
from ..values.checkpoint import Blob
from ..values.digest import BLOCK_DIGEST_SIZE, BLOCK_SIZE, Digest
from ..values.frame import blobs_of
from ..values.manifest import Manifest
from ..values.thinned import optimizer_blobs

AT_ONCE = 2_000
"""Packs of the store that are looked up in one statement."""

USERS_NAMED = 5
"""Most checkpoints listed with a damaged blob."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding. ``kind`` is stable and machine-readable; ``what`` names a pack, blob, checkpoint or model."""

    kind: str
    what: str
    detail: str


@dataclass(slots=True)
class Checked:
    """The numbers of checked items. ``healed`` are damaged blobs that an upload has brought again."""

    packs: int = 0
    blobs: int = 0
    checkpoints: int = 0
    read_bytes: int = 0
    healed: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Fsck:
    """One check; ``findings`` goes through everything once. With ``mark`` the marks on blobs are updated to what
    ``read_data`` finds.
    """

    catalog: Catalog
    store: PackStore
    read_data: bool
    mark: bool = False
    checked: Checked = field(default_factory=Checked)

    def findings(self) -> Iterator[Finding]:
        """Findings as they are found. Raises StoreError if catalog or store cannot be read at all."""
        yield from self._of_known_packs()
        yield from self._of_unknown_packs()
        for row in audit.all_blobs(self.catalog):
            self.checked.blobs += 1
            yield from self._of_blob(row)
        for checkpoint in audit.all_checkpoints(self.catalog):
            self.checked.checkpoints += 1
            yield from self._of_checkpoint(checkpoint)
        with self.catalog.read() as s:
            wrong = audit_counters.wrong_models(s) + audit_counters.wrong_runs(s)
            miscounted = audit_counters.wrong_namespaces(s)
        for model, difference in wrong:
            yield Finding("wrong-model", str(model), difference)
        for namespace, difference in miscounted:
            yield Finding("wrong-namespace", namespace, difference)

    def _of_known_packs(self) -> Iterator[Finding]:
        for pack in audit.all_packs(self.catalog):
            if not pack.sealed:
                continue
            self.checked.packs += 1
            try:
                size = self.store.size(pack.name)
            except PackMissing:
                if self._is_sealed(pack):
                    yield Finding("pack-missing", pack.name, f"a pack of {pack.size:,} bytes is not in the store")
            else:
                if size != pack.size and self._is_sealed(pack):
                    yield Finding(
                        "pack-size", pack.name, f"has {size:,} bytes in the store, but should have {pack.size:,}"
                    )

    def _is_sealed(self, pack: PackRow) -> bool:
        """Tell whether the pack is still sealed, and so was sealed all the time."""
        with self.catalog.read() as s:
            row = audit.packs_in(s, [area_of(pack.name)]).get(area_of(pack.name))
        return row is not None and row.sealed and row.name == pack.name

    def _of_unknown_packs(self) -> Iterator[Finding]:
        suspects: set[tuple[str, bool]] = set()
        stored_packs = self.store.walk()
        while found := list(islice(stored_packs, AT_ONCE)):
            with self.catalog.read() as s:
                known = audit.packs_in(s, [area_of(stored.name) for stored in found])
            suspects |= {(stored.name, stored.whole) for stored in found if not _belongs(stored, known)}
        if not suspects:
            return
        for stored in self.store.walk():  # files gone now were being cleaned up: bytes go before their row
            if (stored.name, stored.whole) in suspects:
                size = f"{stored.size:,} bytes"
                if stored.whole:
                    yield Finding(
                        "pack-unknown", stored.name, f"{size} of a pack that is not in the catalog and is never deleted"
                    )
                else:
                    yield Finding("part-unknown", stored.name, f"{size} of an interrupted write that is never deleted")

    def _of_blob(self, row: BlobRow) -> Iterator[Finding]:
        blob = row.blob
        if not row.pack_sealed or blob.offset < 0 or blob.offset + blob.length > row.pack_size:
            yield self._damaged("blob-misplaced", row, f"is not inside its pack {blob.pack}")
            return
        count = max(1, -(-blob.length // BLOCK_SIZE))
        if len(blob.blocks) != count * BLOCK_DIGEST_SIZE or digest_of_blocks(blob.blocks) != blob.digest:
            yield self._damaged("blob-digests", row, "does not match the digests of its blocks")
            return
        if row.healed_at is not None:
            self.checked.healed.append(f"{row.namespace} {blob.digest}, {row.healed_at:%Y-%m-%d %H:%M} UTC")
        problem = self._problem_of_bytes(row) if self.read_data else None
        if problem:
            yield self._damaged("blob-damaged", row, problem)
        elif row.damaged_at is not None and not self.read_data:
            since = f"{row.damaged_at:%Y-%m-%d %H:%M} UTC"
            yield self._blob_finding("blob-damaged", row, f"was found damaged or lost, {since}")
        elif row.damaged_at is not None and self.mark:
            with self.catalog.write(row.namespace) as w:
                damage.clear(w, row.namespace, blob)
        elif row.damaged_at is not None:
            yield self._blob_finding("blob-marked", row, "is marked as damaged but is intact; --mark removes the mark")

    def _problem_of_bytes(self, row: BlobRow) -> str | None:
        now: BlobRow | None = row
        while now is not None:
            looked_at = now.blob
            try:
                checksum = 0
                for block in verified_blocks(self.store, looked_at):
                    checksum = crc32(block, checksum)
                    self.checked.read_bytes += len(block)
            except StoreError as error:
                problem: str | None = error.detail
            else:
                problem = None if checksum == looked_at.crc32 else "its CRC32 does not match the catalog"
            if problem is None:
                return None
            with self.catalog.read() as s:
                now = audit.blob_named(s, row.namespace, looked_at.digest)
            if now is not None and now.blob == looked_at:
                return problem
        return None

    def _damaged(self, kind: str, row: BlobRow, detail: str) -> Finding:
        """Make the finding. With ``mark``, also mark the blob, so that the next upload brings it again."""
        if self.mark:
            self.store.ping()  # an unavailable store does not mean lost blobs
            with self.catalog.write(row.namespace) as w:
                damage.mark(w, row.namespace, row.blob)
        return self._blob_finding(kind, row, detail)

    def _blob_finding(self, kind: str, row: BlobRow, detail: str) -> Finding:
        with self.catalog.read() as s:
            users = audit.users_of(s, row.id, USERS_NAMED + 1)
        used = ", ".join(users[:USERS_NAMED]) + (", ..." if users[USERS_NAMED:] else "") if users else "no checkpoint"
        return Finding(kind, f"{row.namespace} {row.blob.digest}", f"{detail} (used by {used})")

    def _of_checkpoint(self, row: CheckpointRow) -> Iterator[Finding]:
        problem = self._problem_of(row)
        if problem is None:
            return
        with self.catalog.read() as s:
            still_there = audit.is_unchanged(s, row)
        if still_there:
            yield Finding("checkpoint-broken", str(row), problem)

    def _problem_of(self, row: CheckpointRow) -> str | None:
        with self.catalog.read() as s:
            referred = audit.references(s, row.id)
        try:
            manifest = decode(self._whole(row.model.namespace, row.manifest))
        except StoreError as error:
            return f"its manifest cannot be read: {error.detail}"
        except (zlib.error, ValueError, KeyError, TypeError) as error:
            return f"its manifest cannot be parsed: {type(error).__name__}"
        return _problem_of_manifest(row, manifest, referred)

    def _whole(self, namespace: str, digest: Digest) -> bytes:
        """The bytes of a blob. Raises StoreError if it cannot be read and has not just moved."""
        before: Blob | None = None
        while True:
            with self.catalog.read() as s:
                row = audit.blob_named(s, namespace, digest)
            if row is None:
                raise StoreError(f"{digest} is not in the catalog")
            try:
                return b"".join(verified_blocks(self.store, row.blob))
            except StoreError:
                if row.blob == before:
                    raise
                before = row.blob


def _belongs(stored: StoredPack, known: Mapping[str, PackRow]) -> bool:
    """Tell whether a file fits a row: a part needs a pack that is being written; a whole pack may also be sealed."""
    pack = known.get(area_of(stored.name))
    return pack is not None and (stored.whole or not pack.sealed)


def _problem_of_manifest(
    row: CheckpointRow, manifest: Manifest, referred: Mapping[tuple[str, Digest], int]
) -> str | None:
    """The first disagreement between manifest, frame, storages and the checkpoint's references, or None."""
    if manifest.frame != row.frame or manifest.size != row.nbytes:
        return "its manifest belongs to another file"
    needed = {(row.model.namespace, row.manifest)}
    gone = optimizer_blobs(manifest) if row.is_thinned else {}
    for digest, size in blobs_of(manifest):
        if digest in gone:
            continue
        key = row.model.namespace, digest
        if key not in referred:
            return f"its reference to {digest} is missing"
        if referred[key] != size:
            return f"{digest} has {referred[key]:,} bytes, but {size:,} in its manifest"
        needed.add(key)
    if row.manifest not in {digest for _, digest in referred}:
        return "its reference to its manifest is missing"
    if extra := [digest for namespace, digest in referred if (namespace, digest) not in needed]:
        return f"it has an unneeded reference to {extra[0]}"
    return None
