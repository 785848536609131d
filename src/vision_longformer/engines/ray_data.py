"""Images shared out by Ray Data: to actors on all machines of a cluster, each of which has the model.

Only which images there are, and what became of them, travels. An image goes from the disk that all machines see through
one actor to that disk. An actor that dies is started again, and so are its images: those whose results are there are
skipped, so whoever does the work has to write results whole, and to recognise them.
"""

from __future__ import annotations

import contextlib
import logging
import pickle
import platform
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from vision_longformer.images.find import Source

Found = TypeVar("Found")
Work = Callable[[Sequence[Source]], Iterable[Found]]
Begin = Callable[[int], Work[Found]]

MISSING = "working on Ray needs its package: pip install 'vision-longformer[ray]'"
TRIES = 4  # for the images of a task whose actor dies
SHARES = 32  # tasks of each actor, at least, so that none works for long when the others are done
MOST_IMAGES = 1024  # of a task
MOST_BYTES = 2**29  # of the images of a task, where it has several
OBJECT_STORE = 2**28  # bytes, of a cluster of this machine alone


class EngineError(Exception):
    """The work cannot go on; the message says why."""


@dataclass(frozen=True)
class RayOptions:
    """Where the work is done.

    Attributes:
        address: Of a cluster; None starts one of this machine alone, which ends with the work.
        actors: How many; None for as many as the cluster has room for.
        cpus: That each takes.
        gpus: That each takes; None for one, where the cluster has any.

    Raises:
        ValueError: A number is out of range.
    """

    address: str | None = None
    actors: int | None = None
    cpus: float = 1.0
    gpus: float | None = None

    def __post_init__(self) -> None:
        if self.actors is not None and self.actors < 1:
            raise ValueError(f"actors={self.actors}: must be at least 1")
        if not self.cpus > 0:
            raise ValueError(f"cpus={self.cpus:g}: must be above 0")
        if self.gpus is not None and not self.gpus >= 0:
            raise ValueError(f"gpus={self.gpus:g}: must be 0 or more")


def over_ray(sources: Sequence[Source], begin: Begin[Found], options: RayOptions) -> Iterator[Found]:
    """Do the same with all images, on the actors of a cluster.

    Args:
        sources: Images that all machines see by the same paths.
        begin: Called in each actor, with how many of them share its machine's memory; returns what does the work. Both
            are pickled on the way, as are results. What they raise that is an `OSError`, `ValueError` or `ImportError`
            ends all.
        options: Where.

    Yields:
        What became of the images, in any order, as tasks of several images are done.

    Raises:
        EngineError: There is no such cluster, or no room in it; the work cannot be done there; or actors died again and
            again over the same images.
        ImportError: Ray is not installed.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ImportError(f"{MISSING} ({error})") from error
    with _connected(options.address):
        plan = _plan(options, ray.cluster_resources(), _most_cpus(ray.nodes()))
        yield from _results(tasks(sources, actors=plan.actors), begin, plan)


@dataclass(frozen=True)
class _ActorPlan:
    """How many actors there are, how many of them on a machine, and what each takes."""

    actors: int
    sharing: int
    cpus: float
    gpus: float


def tasks(sources: Sequence[Source], *, actors: int) -> Iterator[list[Source]]:
    """Share images out, in order, so that a task is neither long nor tiny."""
    most = min(MOST_IMAGES, max(1, len(sources) // (actors * SHARES)))
    task: list[Source] = []
    size = 0
    for source in sources:
        own = _size(source)
        if task and (len(task) >= most or size + own > MOST_BYTES):
            yield task
            task, size = [], 0
        task.append(source)
        size += own
    if task:
        yield task


def _size(source: Source) -> int:
    """Return the bytes of an image; as many as a task takes where they are not known."""
    with contextlib.suppress(OSError):
        if (size := source.size) is not None:
            return size
    return MOST_BYTES


def _plan(options: RayOptions, resources: dict[str, float], most_cpus: float) -> _ActorPlan:
    """Return which actors fit into a cluster.

    Raises:
        EngineError: None does.
    """
    gpus = options.gpus
    if gpus is None:
        gpus = 1.0 if resources.get("GPU", 0) >= 1 else 0.0
    room = int(resources.get("CPU", 0) / options.cpus)
    if gpus:
        room = min(room, int(resources.get("GPU", 0) / gpus))
    if room < 1 and (options.actors is None or options.address is None):
        raise EngineError(
            f"an actor takes {options.cpus:g} CPUs and {gpus:g} GPUs, and the cluster has {resources.get('CPU', 0):g} "
            f"and {resources.get('GPU', 0):g}: let it take fewer (--actor-cpus, --actor-gpus)"
        )
    actors = room if options.actors is None else options.actors
    return _ActorPlan(actors, min(actors, max(1, int(most_cpus / options.cpus))), options.cpus, gpus)


def _most_cpus(nodes: Iterable[dict[str, Any]]) -> float:
    """Return the CPUs of the machine that has most."""
    return max((float(node["Resources"].get("CPU", 0)) for node in nodes if node["Alive"]), default=1.0)


@contextlib.contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """Be in a cluster, as long as the context lasts; one that this process was in before stays."""
    import ray

    if ray.is_initialized():
        yield
        return
    local = {"address": "local", "include_dashboard": False, "object_store_memory": OBJECT_STORE}
    options: dict[str, Any] = local if address is None else {"address": address}
    try:
        with _own_signals():
            ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
        yield
    except (ConnectionError, TimeoutError) as error:
        raise EngineError(f"{address or 'Ray'}: there is no such cluster, or it does not answer ({error})") from error
    finally:
        with _own_signals():
            ray.shutdown()


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep what SIGTERM does, which Ray sets for itself."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _results(shares: Iterable[Sequence[Source]], begin: Begin[Found], plan: _ActorPlan) -> Iterator[Found]:
    import ray.data

    for name, level in (("ray.data", logging.WARNING), ("ray.data._internal.progress", logging.ERROR)):
        logging.getLogger(name).setLevel(level)
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = [{"sources": pickle.dumps(share)} for share in shares]
    if not rows:
        return
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of max_task_retries, which has no other way yet
        dataset = dataset.map_batches(
            _Actor,
            fn_constructor_args=(begin, plan.sharing),
            batch_size=None,  # a block, which has one row
            compute=ray.data.ActorPoolStrategy(size=min(plan.actors, len(rows)), max_tasks_in_flight_per_actor=2),
            num_cpus=plan.cpus,
            num_gpus=plan.gpus,
            max_restarts=-1,  # machines may come and go
            max_task_retries=TRIES - 1,
        )
    try:
        for row in dataset.iter_rows():
            found = pickle.loads(row["found"])
            if isinstance(found, EngineError):
                raise found
            yield found
    except ray.exceptions.RayError as error:
        if isinstance(error, ray.exceptions.RayTaskError):  # raised by what an actor does
            raise
        if isinstance(error, ray.exceptions.RayActorError) and error.actor_init_failed:
            raise EngineError(
                f"the processes that were to work cannot begin ({_reason(str(error))}): has each machine of the "
                "cluster the same vision-longformer installed?"
            ) from error
        raise EngineError(
            f"the processes that worked on some images died {TRIES} times, perhaps for want of memory; what was "
            "finished is kept, and running again goes on from there"
        ) from error


def _reason(error: str) -> str:
    """Return the last line of an actor's traceback, which says what was wrong."""
    return next((line.strip() for line in reversed(error.splitlines()) if line.strip(" ^")), "for an unknown reason")


class _Actor:
    """Works on the images of one task after the other."""

    def __init__(self, begin: Begin[Any], sharing: int) -> None:
        self._begin, self._sharing = begin, sharing
        self._work: Work[Any] | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        found: list[Any] = []
        try:
            if self._work is None:
                self._work = self._begin(self._sharing)
            for sources in batch["sources"]:
                found.extend(self._work(pickle.loads(sources)))
        except (OSError, ValueError, ImportError) as error:
            found.append(EngineError(f"{platform.node()}: {error}"))
        return {"found": [pickle.dumps(one) for one in found]}
