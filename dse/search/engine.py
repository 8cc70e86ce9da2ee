"""Engines: where the pieces of a sweep are computed. Results come back in any order, each with its number."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from importlib import import_module
from typing import Any, Final, TypeVar

from dse.errors import BadInput, DseError, nearest
from dse.processes import end_with, unhurried

ENGINES: Final = ("loky", "threading", "multiprocessing", "dask")
"""The first two are joblib's backends. ``dask`` starts a local cluster of `jobs` worker processes;
``dask:ADDRESS`` (such as ``dask:tcp://10.0.0.1:8786``) uses a running scheduler and all of its workers."""

Piece = TypeVar("Piece")
ATTEMPTS: Final = 10
"""Workers that may die with a piece before dask gives up on it."""


def check_engine(engine: str, jobs: int) -> None:
    """Raise BadInput where there is no such engine, or its number of workers makes no sense."""
    name, colon, address = engine.partition(":")
    if name not in ENGINES or (colon and (name != "dask" or not address)):
        raise BadInput(
            f"engine {engine!r}: no such engine; {nearest(name, ENGINES)} (or dask:ADDRESS of a running scheduler)"
        )
    if isinstance(jobs, bool) or jobs == 0 or jobs < -1:
        raise BadInput(f"jobs: {jobs}; must be a positive number, or -1 for all cores")
    if name == "dask":
        try:
            import_module("distributed")
        except ImportError:
            raise BadInput("engine 'dask': needs dask's scheduler: pip install 'dask[distributed]'") from None


def compute(
    function: Callable[[Any], Piece], pieces: Sequence[tuple[int, Any]], jobs: int, engine: str
) -> Iterator[tuple[int, Piece]]:
    """(number, function(argument)) of every (number, argument), as they are done."""
    name, _, address = engine.partition(":")
    if name == "dask":
        if pieces:
            yield from _dask(function, pieces, jobs, address)
        return
    if jobs == 1 or len(pieces) < 2:
        for number, argument in pieces:
            yield number, function(argument)
        return
    try:
        yield from (_forked if name == "multiprocessing" else _joblib)(function, pieces, jobs, name)
    except BrokenExecutor:  # loky's and the standard library's
        raise DseError(
            "a worker process was killed (out of memory?); what is finished stays: type the command again, with fewer "
            "--jobs if it was memory"
        ) from None


def _joblib(
    function: Callable[[Any], Piece], pieces: Sequence[tuple[int, Any]], jobs: int, name: str
) -> Iterator[tuple[int, Piece]]:
    from joblib import Parallel, delayed

    parallel = Parallel(n_jobs=jobs, backend=name, return_as="generator_unordered")
    here = os.getpid()
    with unhurried():  # the first pieces are handed out, and the workers started, before the first result
        results = parallel(
            delayed(_numbered)(function, number, argument, here) for number, argument in pieces
        )
    yield from results


def _forked(
    function: Callable[[Any], Piece], pieces: Sequence[tuple[int, Any]], jobs: int, name: str
) -> Iterator[tuple[int, Piece]]:
    """The standard library's processes; joblib's backend of that name gives results only when all are there."""
    pool = ProcessPoolExecutor(None if jobs == -1 else jobs)
    try:
        with unhurried():
            futures = [
                pool.submit(_numbered, function, number, argument, os.getpid()) for number, argument in pieces
            ]
        for future in as_completed(futures):
            yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _numbered(
    function: Callable[[Any], Piece], number: int, argument: Any, parent: int = 0
) -> tuple[int, Piece]:
    """A piece in a worker that ends with the process `parent`."""
    end_with(parent)
    return number, function(argument)


def _dask(
    function: Callable[[Any], Piece], pieces: Sequence[tuple[int, Any]], jobs: int, address: str
) -> Iterator[tuple[int, Piece]]:
    dask, distributed = import_module("dask"), import_module("distributed")
    with dask.config.set({"distributed.scheduler.allowed-failures": ATTEMPTS}):
        if address:
            try:
                client = distributed.Client(address, timeout=10)
            except (OSError, TimeoutError, ValueError) as error:
                raise BadInput(f"engine 'dask:{address}': no scheduler answers there ({error})") from None
            yield from _gather(client, function, pieces, distributed)
            return
        workers = None if jobs == -1 else jobs
        with unhurried():
            local = distributed.LocalCluster(
                n_workers=workers, threads_per_worker=1, dashboard_address=None, silence_logs=50
            )
        with local as cluster:
            yield from _gather(distributed.Client(cluster), function, pieces, distributed)


def _gather(
    client: Any, function: Callable[[Any], Piece], pieces: Sequence[tuple[int, Any]], distributed: Any
) -> Iterator[tuple[int, Piece]]:
    with client:
        futures = [
            client.submit(_numbered, function, number, argument, pure=False, retries=2)
            for number, argument in pieces
        ]
        # Results are dropped as they arrive: the scheduler need not hold a whole sweep.
        for future in distributed.as_completed(futures):
            yield future.result()
            future.release()
