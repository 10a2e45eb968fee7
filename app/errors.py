"""The tree of errors, independent of HTTP.

StateroomError
├── InvalidRequest               a request that cannot be understood; ``code`` says which rule
├── RefusedCheckpoint            an upload that Stateroom will not store
│   ├── NotACheckpoint           not a file that torch.save writes
│   ├── HostileCheckpoint        breaks a rule that every honest file keeps
│   ├── NoTensors                a checkpoint without a tensor
│   ├── BadFolder                a folder whose files do not fit together, or whose paths cannot be kept
│   └── ShardedTensor            one rank's shard of a distributed tensor
├── SelectionError               a selection that cannot be served; ``code`` says which rule
├── Unmergeable                  checkpoints whose tensors do not fit together
├── NotFound                     no such model, checkpoint, component or key
├── Gone                         kept for a limited time, which is over
│   └── EventsExpired            events that a reader has not seen have been deleted
├── Conflict                     the request contradicts what is stored
│   └── KeyInUse                 another upload with the same idempotency key was stored first
├── PreconditionFailed           the request was for another state than the present one
├── IncompleteUpload             the body ended early, stopped coming, or is longer than it said
├── TooLarge                     more bytes than this server takes in
├── QuotaExceeded                the namespace would hold more than it may
├── TooManyUploads               more uploads at once than this server takes in
├── Cancelled                    nobody waits for the answer any more, so the work for it was given up
├── ServerBusy                   the server's memory for requests is in use
├── StoreError                   the store failed: never the same as "not there"
│   ├── PackMissing              a pack that should be there is not
│   ├── DamagedBlob              bytes that no longer match their digest
│   └── StorageFull              no room left on the device
└── MissingBlobs                 a commit refers to blobs that have gone meanwhile

An error's text is for the user: what is wrong, where, and what would be right. It never holds a path of the server.
"""

from collections.abc import Mapping, Sequence
from typing import Any


class StateroomError(Exception):
    """The base of all errors raised on purpose. ``code`` is stable and machine-readable."""

    code = "internal-error"

    def __init__(self, detail: str, *, code: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        if code is not None:
            self.code = code


class InvalidRequest(StateroomError):
    code = "malformed-request"


class RefusedCheckpoint(StateroomError):
    """``rule`` names the rule that was broken, ``where`` the place in the file (a record, an offset, a key)."""

    code = "refused-checkpoint"

    def __init__(self, detail: str, *, rule: str | None = None, where: str | None = None) -> None:
        super().__init__(detail)
        self.rule = rule
        self.where = where


class NotACheckpoint(RefusedCheckpoint):
    code = "not-a-checkpoint"


class HostileCheckpoint(RefusedCheckpoint):
    code = "hostile-checkpoint"


class NoTensors(RefusedCheckpoint):
    code = "no-tensors"


class BadFolder(RefusedCheckpoint):
    code = "bad-folder"


class ShardedTensor(RefusedCheckpoint):
    code = "sharded-tensor"


class SelectionError(StateroomError):
    """``near`` are names that come close to what was asked for."""

    code = "no-keys-matched"

    def __init__(self, detail: str, *, code: str, near: Sequence[str] = ()) -> None:
        super().__init__(detail, code=code)
        self.near = tuple(near)


class Unmergeable(StateroomError):
    """``mismatched`` are some of the keys that do not fit: ``checkpoint``, ``key``, what they ``have`` and ``want``."""

    code = "not-mergeable"

    def __init__(self, detail: str, *, mismatched: Sequence[Mapping[str, str | None]]) -> None:
        super().__init__(detail)
        self.mismatched = tuple(mismatched)


class NotFound(StateroomError):
    code = "not-found"


class Gone(StateroomError):
    code = "gone"


class EventsExpired(Gone):
    """The reader can go on with the events after the event ``after``."""

    code = "events-expired"

    def __init__(self, detail: str, *, after: int) -> None:
        super().__init__(detail)
        self.after = after


class Conflict(StateroomError):
    code = "conflict"


class KeyInUse(Conflict):
    code = "idempotency-key-in-use"


class CrossSite(StateroomError):
    code = "cross-site"


class PreconditionFailed(StateroomError):
    """``etag`` is the current ETag, None if there is no resource. ``state`` is its JSON, if the answer shows it."""

    code = "precondition-failed"

    def __init__(self, detail: str, *, etag: str | None, state: Mapping[str, Any] | None = None) -> None:
        super().__init__(detail)
        self.etag = etag
        self.state = state


class IncompleteUpload(StateroomError):
    code = "incomplete-upload"


class TooLarge(StateroomError):
    code = "too-large"


class QuotaExceeded(StateroomError):
    code = "quota-exceeded"


class TooManyUploads(StateroomError):
    code = "too-many-uploads"


class Cancelled(StateroomError):
    code = "cancelled"


class ServerBusy(StateroomError):
    code = "server-busy"


class StoreError(StateroomError):
    code = "store-failed"


class PackMissing(StoreError):
    code = "pack-missing"


class DamagedBlob(StoreError):
    code = "damaged-blob"


HOW_TO_FREE = (
    "Delete checkpoints: a sweep frees their bytes when their time in the trash and the grace period are over, "
    "`stateroom-server sweep --empty-trash --grace 0` at once"
)


class StorageFull(StoreError):
    """The error's text goes on with what to do."""

    code = "storage-full"

    def __init__(self, detail: str, *, code: str | None = None) -> None:
        super().__init__(f"{detail}. {HOW_TO_FREE}.", code=code)


class MissingBlobs(StateroomError):
    code = "missing-blobs"

    def __init__(self, detail: str, *, digests: Sequence[str]) -> None:
        super().__init__(detail)
        self.digests = tuple(digests)
