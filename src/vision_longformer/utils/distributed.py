"""One process or many: what a run needs of torch.distributed, and nothing of it where there is one process."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """The processes of a run.

    Attributes:
        count: How many.
        rank: This one, from 0.
        local_rank: This one among those of the same machine, from 0.
        local_count: How many there are on the same machine.
    """

    count: int = 1
    rank: int = 0
    local_rank: int = 0
    local_count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of `values` over all processes."""
        if self.count > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def maximum(self, values: Tensor) -> Tensor:
        """Return the largest of `values` over all processes, element by element."""
        if self.count > 1:
            values = values.clone()
            dist.all_reduce(values, op=dist.ReduceOp.MAX)
        return values

    def any(self, flag: bool, *, device: torch.device) -> bool:
        """Tell whether some process says so. A GPU is waited for only where there are several."""
        return flag if self.count == 1 else bool(self.maximum(torch.tensor(float(flag), device=device)))

    def wrap(self, model: nn.Module, *, device: torch.device, in_parts: bool) -> nn.Module:
        """Return what averages the gradients of a model over all processes.

        Args:
            model: Each of its parameters takes part in every step.
            device: Where it is.
            in_parts: Whether there are backward passes whose gradients are not averaged, which a static graph forbids.
        """
        on_gpu = [device.index] if device.type == "cuda" else None
        return DistributedDataParallel(
            model, device_ids=on_gpu, gradient_as_bucket_view=True, static_graph=not in_parts
        )

    def share_first(self, tensors: Iterable[Tensor]) -> None:
        """Give all processes the values that the first one has, in place."""
        if self.count > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def gather(self, value: T) -> list[T]:
        """Return what each process has, in their order; it is pickled on the way."""
        if self.count == 1:
            return [value]
        gathered: list[Any] = [None] * self.count
        dist.all_gather_object(gathered, value)
        return gathered

    def share(self, value: T) -> T:
        """Return what the first process has; it is pickled on the way."""
        return self.gather(value)[0]

    def exchange(self, given: Mapping[int, Tensor], taken: Mapping[int, Tensor]) -> None:
        """Give tensors to other processes, and fill others with what they give; each by the number of the process."""
        calls = [dist.P2POp(dist.isend, tensor, rank) for rank, tensor in given.items()]
        calls += [dist.P2POp(dist.irecv, tensor, rank) for rank, tensor in taken.items()]
        if calls:
            for call in dist.batch_isend_irecv(calls):
                call.wait()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Raise in all processes what is raised in one of them; no other call that waits for them may be inside.

        It is the error of the first process that has one.
        """
        error: Exception | None = None
        try:
            yield
        except Exception as raised:
            if self.count == 1:
                raise
            error = raised
        if self.count == 1:
            return
        errors = self.gather(None if error is None else _portable(error))
        number = next((rank for rank, found in enumerate(errors) if found is not None), None)
        if number is None:
            return
        if number == self.rank and error is not None:
            raise error
        found = errors[number]
        assert found is not None
        raise found

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            dist.barrier()


def join(device: str) -> Processes:
    """Join the processes that torchrun started, if it did.

    The backend is nccl on GPUs and gloo on CPUs.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return Processes()
    count, local = int(os.environ["WORLD_SIZE"]), os.environ.get("LOCAL_RANK", "0")
    local_count = int(os.environ.get("LOCAL_WORLD_SIZE", count))
    processes = Processes(count, int(os.environ["RANK"]), int(local), local_count)
    if processes.count > 1:
        on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
        if on_gpu:
            torch.cuda.set_device(processes.local_rank)
        backend = "nccl" if on_gpu else "gloo"
        store = _store_of_this_attempt(processes)
        dist.init_process_group(backend, store=store, rank=processes.rank, world_size=processes.count)
    return processes


def _portable(error: Exception) -> Exception:
    """Return an error as another process can raise it."""
    try:
        if type(pickle.loads(pickle.dumps(error))) is type(error):
            return error
    except Exception:  # whatever its class does
        pass
    return ValueError(str(error)) if isinstance(error, ValueError) else RuntimeError(f"{type(error).__name__}: {error}")


def _store_of_this_attempt(processes: Processes) -> Any:
    """Return the store where processes find each other, apart from what those before a restart left in it.

    torchrun keeps one store through all restarts; gloo would connect to the addresses of processes that are gone.
    """
    by_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    store = dist.TCPStore(  # type: ignore[attr-defined]
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        world_size=processes.count,
        is_master=not by_agent and processes.is_first,
        multi_tenant=not by_agent,
    )
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return dist.PrefixStore(f"attempt {attempt}", store)  # type: ignore[attr-defined]


def leave(processes: Processes) -> None:
    """End what `join` began."""
    if processes.count > 1 and dist.is_initialized():
        dist.destroy_process_group()
