"""Prometheus metrics: counted by each worker, and summed over all workers at each scrape.

Workers count into files in a shared folder, as prometheus_client does. A worker that replaces a dead one continues the
dead worker's files, so no count is lost and no file is left over.
"""

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest, values
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from ..catalog import Catalog
from ..catalog.totals import Totals, totals
from ..private import FILE
from ..store import Room
from ..store.failures import translated
from ..values.event import NewEvent
from ..version import server_build, server_version

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""The buckets of request durations: metadata takes milliseconds, a transfer minutes."""

_FILE = re.compile(r"(counter|gauge_[a-z]+|histogram)_[0-9]+\.db", re.ASCII)
_KINDS = ("counter", "gauge_livesum", "histogram")
_FILE_SIZE = 1024 * 1024
"""Initial bytes of a file, as in prometheus_client: room for some thousands of figures."""

WORKERS = "stateroom_worker_pid"

COUNTED_EVERY = 30.0
"""Seconds for which the catalog's totals are cached: counting millions of blobs takes a while."""


class Metrics:
    """The metrics of one process; with a ``folder``, of worker ``number`` among the workers that share the folder.

    Create one per process: a folder configures prometheus_client for the whole process. Raises StorageFull.
    """

    def __init__(self, folder: Path | None = None, number: int = 0) -> None:
        self._folder = folder
        if folder is not None:
            _allocate(folder, number)
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
            values.ValueClass = values.MultiProcessValue(lambda: number)
        self._registry = own = CollectorRegistry()
        self.received = Counter("stateroom_received_bytes", "Bytes of request bodies", registry=own)
        self.sent = Counter("stateroom_sent_bytes", "Bytes of response bodies", registry=own)
        self.stored = Counter("stateroom_stored_bytes", "Bytes that uploads added to the store", registry=own)
        self.deduplicated = Counter(
            "stateroom_deduplicated_bytes", "Uploaded bytes that the store already had", registry=own
        )
        self.swept = Counter("stateroom_swept_bytes", "Bytes that sweeps freed", registry=own)
        self.uploads = Counter(
            "stateroom_uploads",
            "Uploads, in one request or negotiated, by outcome: stored, replayed, cancelled, or an error code",
            ("outcome",),
            registry=own,
        )
        self.events = Counter("stateroom_events", "Events recorded, by kind", ("kind",), registry=own)
        self.waiting_clients = Gauge(
            "stateroom_waiting_clients", "Clients that wait for events", registry=own, multiprocess_mode="livesum"
        )
        self.webhooks = Counter(
            "stateroom_webhook_attempts", "Attempts to deliver to webhooks, by outcome", ("outcome",), registry=own
        )
        self.requests = Histogram(
            "stateroom_request_seconds",
            "Seconds from a request to the last byte of its response",
            ("method", "route", "status"),
            buckets=SECONDS,
            registry=own,
        )
        self.streams = Gauge(
            "stateroom_open_streams", "Downloads being sent", registry=own, multiprocess_mode="livesum"
        )
        self.running, self.waiting = (
            Gauge(f"stateroom_{state}_calls", text, ("kind",), registry=own, multiprocess_mode="livesum")
            for state, text in (
                ("running", "Calls running on a thread, by kind: ask, plan, long plan, commit"),
                ("waiting", "Calls waiting for a thread, by kind"),
            )
        )
        pid = Gauge(WORKERS, "Process id of each worker", ("worker",), registry=own, multiprocess_mode="livesum")
        pid.labels(str(number)).set(os.getpid())

        self._totals: Totals | None = None
        self._counted_at = 0.0

    def count_events(self, events: Sequence[NewEvent]) -> None:
        for event in events:
            self.events.labels(event.kind.value).inc()

    def text(self, catalog: Catalog, room: Room, of_store: Room) -> bytes:
        """Return all metrics, including the store's, in the Prometheus text format. Blocks."""
        registry = CollectorRegistry()
        if self._folder is None:
            registry.register(self._registry)
        else:
            MultiProcessCollector(registry, str(self._folder))
        pids = {each.labels["worker"]: int(each.value) for each in _samples(registry, WORKERS)}
        registry.register(_OfTheProcesses(pids))
        registry.register(_OfTheStore(self._counted(catalog)))
        registry.register(_OfTheDisks(room, of_store))
        return generate_latest(registry)

    def _counted(self, catalog: Catalog) -> Totals:
        if self._totals is None or time.monotonic() - self._counted_at > COUNTED_EVERY:
            with catalog.read() as session:
                self._totals = totals(session)
            self._counted_at = time.monotonic()
        return self._totals


def _samples(registry: CollectorRegistry, name: str) -> Iterator[Sample]:
    for family in registry.collect():
        yield from (sample for sample in family.samples if sample.name == name)


class _OfTheProcesses(Collector):
    """The version, and the memory, processor time and open files of each worker; ``pids`` are by worker."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = pids

    def collect(self) -> Iterator[Metric]:
        build = GaugeMetricFamily("stateroom_build_info", "The version of the server", labels=("version", "build"))
        build.add_metric([server_version(), server_build() or ""], 1)
        yield build
        families: dict[str, Metric] = {}
        for worker, pid in self._pids.items():
            for found in ProcessCollector(pid=partial(int, pid), registry=None).collect():
                family = families.setdefault(found.name, Metric(found.name, found.documentation, found.type))
                for sample in found.samples:
                    family.add_sample(sample.name, {"worker": worker}, sample.value)
        yield from families.values()


class _OfTheStore(Collector):
    def __init__(self, totals: Totals) -> None:
        self._totals = totals

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for name, text, value in (
            ("stateroom_store_bytes", "Bytes of all packs", self._totals.pack_bytes),
            ("stateroom_packs", "Packs", self._totals.packs),
            ("stateroom_blobs", "Blobs", self._totals.blobs),
            ("stateroom_checkpoints", "Checkpoints", self._totals.checkpoints),
            ("stateroom_damaged_blobs", "Blobs found damaged or lost", self._totals.damaged_blobs),
        ):
            yield GaugeMetricFamily(name, text, value)
        stored = GaugeMetricFamily("stateroom_namespace_bytes", "Stored bytes, by namespace", labels=("namespace",))
        held = GaugeMetricFamily("stateroom_namespace_checkpoints", "Checkpoints, by namespace", labels=("namespace",))
        for namespace, (nbytes, checkpoints) in self._totals.namespaces.items():
            stored.add_metric([namespace], nbytes)
            held.add_metric([namespace], checkpoints)
        yield stored
        yield held
        use = GaugeMetricFamily(
            "stateroom_quota_used_ratio",
            "Used part of each quota, by namespace and quota: bytes, checkpoints",
            labels=("namespace", "quota"),
        )
        for labels, ratio in self._totals.quota_use.items():
            use.add_metric(labels, ratio)
        yield use


class _OfTheDisks(Collector):
    def __init__(self, room: Room, of_store: Room) -> None:
        self._room = room
        self._of_store = of_store

    def collect(self) -> Iterator[GaugeMetricFamily]:
        free, of_store = self._room.free(), self._of_store.free()
        family = GaugeMetricFamily("stateroom_disk_free_bytes", "Free bytes, by device", labels=("device",))
        family.add_metric(["data"], free[0].nbytes)
        if of_store:
            family.add_metric(["store"], of_store[-1].nbytes)
        yield family
        yield GaugeMetricFamily(
            "stateroom_reserve_bytes", "Bytes reserved for deletes; 0 while the disk is full", self._room.reserve_held
        )


def is_metrics_file(name: str) -> bool:
    """Tell whether workers count into a file of this name."""
    return _FILE.fullmatch(name) is not None


def _allocate(folder: Path, number: int) -> None:
    """Create the files of worker ``number`` with all their bytes allocated. They are mapped into memory, and a page
    that a full disk has no room for would kill the process. Raises StorageFull.
    """
    for kind in _KINDS:
        with translated("creating the metrics files"):
            fd = os.open(folder / f"{kind}_{number}.db", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE)
            try:
                os.posix_fallocate(fd, 0, _FILE_SIZE)
            finally:
                os.close(fd)


def drop_live(folder: Path, number: int) -> None:
    """Drop the live gauges of worker ``number``, which has ended."""
    mark_process_dead(number, str(folder))
