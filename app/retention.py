"""Retention: after each commit and at each sweep, removing what nothing keeps, and thinning what is old."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from .catalog import Catalog, blobs, retention
from .catalog.checkpoints import resolve
from .errors import NotFound, StateroomError, StoreError
from .formats.manifest_json import decode
from .store import PackStore
from .store.verified import verified_blocks
from .values.checkpoint import Checkpoint, ModelName, RemovalReason
from .values.manifest import Manifest
from .values.retention import Rules
from .values.thinned import optimizer_blobs

_log = logging.getLogger("stateroom.retention")


@dataclass(frozen=True, slots=True)
class Tidied:
    """The number of checkpoints that were moved to the trash, and of those that lost their optimizers' bytes."""

    removed: int = 0
    thinned: int = 0


@dataclass(frozen=True, slots=True)
class Preview:
    """The effects that ``rules`` would have now. ``kept`` says by what each checkpoint would be kept. ``trash_bytes``
    are freed once the trash is purged, ``thinned_bytes`` unless other checkpoints refer to them.
    """

    removed: dict[int, RemovalReason]
    thinned: Sequence[int]
    kept: dict[int, tuple[str, ...]]
    trash_bytes: int
    thinned_bytes: int
    warnings: Sequence[str]


@dataclass(frozen=True, slots=True)
class Retention:
    """The removal of checkpoints by rules, slots and times of expiry. They stay in the trash for ``kept``."""

    catalog: Catalog
    store: PackStore
    kept: timedelta

    def after_commit(self, checkpoint: Checkpoint) -> None:
        """Do what the new checkpoint means for its run. What fails is left to the next sweep: the commit is done."""
        try:
            with self.catalog.read() as s:
                if checkpoint.slot is None and not retention.has_rules(s, checkpoint.model):
                    return
            self._tidy(checkpoint.model, lambda: None, checkpoint.run)
        except StateroomError as error:
            _log.warning("retention of %s is left to the next sweep: %s", checkpoint.model, error)

    def everywhere(self, go_on: Callable[[], None]) -> Tidied:
        """Do what is due in all models. ``go_on`` is called between two transactions."""
        with self.catalog.read() as s:
            names = retention.models_to_tidy(s, datetime.now(UTC))
        removed = thinned = 0
        for name in names:
            go_on()
            try:
                done = self._tidy(name, go_on)
            except NotFound:  # the model was deleted meanwhile
                continue
            removed, thinned = removed + done.removed, thinned + done.thinned
        return Tidied(removed, thinned)

    def count_due(self) -> Tidied:
        """Count what ``everywhere`` would do."""
        now = datetime.now(UTC)
        removed = thinned = 0
        with self.catalog.read() as s:
            for name in retention.models_to_tidy(s, now):
                verdict = retention.verdict_of(s, name, retention.rules_of(s, name), now)
                removed, thinned = removed + len(verdict.removed), thinned + len(verdict.thinned)
        return Tidied(removed, thinned)

    def preview(self, name: ModelName, rules: Rules | None) -> Preview:
        """Say what ``rules`` would do to a model. Raises NotFound."""
        with self.catalog.read() as s:
            verdict = retention.verdict_of(s, name, rules, datetime.now(UTC))
            return Preview(
                removed={version: verdict.removed[version] for version in sorted(verdict.removed)},
                thinned=sorted(verdict.thinned),
                kept={version: verdict.kept[version] for version in sorted(verdict.kept)},
                trash_bytes=retention.bytes_freed(s, name, list(verdict.removed)),
                thinned_bytes=retention.optimizer_bytes_of(s, name, verdict.thinned),
                warnings=[_warning(run, metric) for run, metric in verdict.unknown],
            )

    def _tidy(self, name: ModelName, go_on: Callable[[], None], run: str | None = retention.EVERY_RUN) -> Tidied:
        removed, versions = retention.remove_unkept(self.catalog, name, self.kept, go_on, run)
        thinned = 0
        for version in versions:
            go_on()
            try:
                thinned += self._thin(name, version)
            except NotFound:  # deleted meanwhile
                continue
            except StoreError as error:
                _log.warning("%s@%d could not be thinned: %s", name, version, error)
        return Tidied(removed, thinned)

    def _thin(self, name: ModelName, version: int) -> bool:
        with self.catalog.read() as s:
            checkpoint = resolve(s, name, str(version))
        digests = list(optimizer_blobs(self._manifest(checkpoint)))
        with self.catalog.turn(name.namespace) as w:
            return retention.thin(w, checkpoint, digests)

    def _manifest(self, checkpoint: Checkpoint) -> Manifest:
        with self.catalog.read() as s:
            blob = blobs.known(s, checkpoint.model.namespace, [checkpoint.manifest]).get(checkpoint.manifest)
        if blob is None:
            raise StoreError(f"the manifest of {checkpoint.model}@{checkpoint.version} is not in the catalog")
        return decode(b"".join(verified_blocks(self.store, blob)))


def _warning(run: str | None, metric: str) -> str:
    where = "without a run" if run is None else f"of the run {run!r}"
    return f"no checkpoint {where} has a finite {metric}, so none of them is removed"
