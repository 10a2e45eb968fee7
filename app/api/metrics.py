"""What an operator wants to see, for Prometheus: counted by each worker, summed over all of them when it is asked for.

Workers count into files of a common folder, which is how prometheus_client does it. A worker that takes a dead one's
place goes on with its files, so nothing that was counted is lost, and no file is left over.
"""

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from ..catalog import Catalog
from ..catalog.totals import Totals, totals

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""The buckets of request durations: metadata takes milliseconds, a transfer minutes."""

_FILE = re.compile(r"(counter|gauge_[a-z]+|histogram)_[0-9]+\.db", re.ASCII)

COUNTED_EVERY = 30.0
"""Seconds that the totals of the catalog are good for: counting millions of blobs takes a while."""


class Metrics:
    """The figures of one process; with a ``folder``, of worker ``number`` among those that share it.

    A process makes one: with a folder, prometheus_client is told for the whole process where to count.
    """

    def __init__(self, folder: Path | None = None, number: int = 0) -> None:
        self._folder = folder
        if folder is not None:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
            values.ValueClass = values.MultiProcessValue(lambda: number)
        self._registry = own = CollectorRegistry()
        self.received = Counter("stateroom_received_bytes", "Bytes of request bodies", registry=own)
        self.sent = Counter("stateroom_sent_bytes", "Bytes of response bodies", registry=own)
        self.stored = Counter("stateroom_stored_bytes", "Bytes by which uploads made the store grow", registry=own)
        self.deduplicated = Counter(
            "stateroom_deduplicated_bytes", "Bytes of uploads that were stored already", registry=own
        )
        self.swept = Counter("stateroom_swept_bytes", "Bytes that sweeps freed", registry=own)
        self.uploads = Counter(
            "stateroom_uploads", "Uploads, by their outcome: stored, or an error's code", ("outcome",), registry=own
        )
        self.requests = Histogram(
            "stateroom_request_seconds",
            "Requests, to the last byte of the answer",
            ("method", "route", "status"),
            buckets=SECONDS,
            registry=own,
        )
        self.streams = Gauge(
            "stateroom_open_streams", "Downloads being sent", registry=own, multiprocess_mode="livesum"
        )

        self._totals: Totals | None = None
        self._counted_at = 0.0

    def text(self, catalog: Catalog) -> bytes:
        """All figures in the text format of Prometheus, those of the store among them. Blocks."""
        registry = CollectorRegistry()
        if self._folder is None:
            registry.register(self._registry)
        else:
            MultiProcessCollector(registry, str(self._folder))
        registry.register(_OfTheStore(self._counted(catalog)))
        return generate_latest(registry)

    def _counted(self, catalog: Catalog) -> Totals:
        if self._totals is None or time.monotonic() - self._counted_at > COUNTED_EVERY:
            with catalog.read() as session:
                self._totals = totals(session)
            self._counted_at = time.monotonic()
        return self._totals


class _OfTheStore(Collector):
    def __init__(self, totals: Totals) -> None:
        self._totals = totals

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for name, text, value in (
            ("stateroom_store_bytes", "Bytes of all packs", self._totals.pack_bytes),
            ("stateroom_packs", "Packs", self._totals.packs),
            ("stateroom_blobs", "Blobs", self._totals.blobs),
            ("stateroom_checkpoints", "Checkpoints", self._totals.checkpoints),
        ):
            yield GaugeMetricFamily(name, text, value)


def is_metrics_file(name: str) -> bool:
    """Whether workers count into a file of this name."""
    return _FILE.fullmatch(name) is not None


def drop_live(folder: Path, number: int) -> None:
    """Worker ``number`` has ended: what it had open is open no more."""
    mark_process_dead(number, str(folder))
