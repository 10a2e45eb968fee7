"""Processes with a process group of torch.distributed. They are forked, because to import torch anew takes seconds."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import torch.distributed as dist
from torch.multiprocessing import start_processes

Work = Callable[[int], None]

AT_FIRST_USE = "torch._dynamo"
"""A module that torch imports with its first collective or sharded tensor. It takes each process most of a second."""


def run_processes(ranks: int, folder: Path, work: Work) -> None:
    """Call ``work(rank)`` in each process. Raises the error of the first that fails."""
    import_module(AT_FIRST_USE)
    store = folder / f"store-{len(list(folder.glob('store-*')))}"
    start_processes(_begin, (ranks, store, work), nprocs=ranks, start_method="fork")


def _begin(rank: int, ranks: int, store: Path, work: Work) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
    try:
        work(rank)
    finally:
        dist.destroy_process_group()
