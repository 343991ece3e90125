"""Several processes that train and evaluate one SuperNet, by torch.distributed, as torchrun starts them.

Every process runs the same search, with the same random numbers, on the same batches. The processes share the
architectures: each trains some of those of a step, and evaluates some of those of a population. Gradients are
summed and counts of right answers gathered, so that all processes have the same weights, which are those of a
single process.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cars_hw.child_processes import launched

T = TypeVar("T")

TIMEOUT: Final = timedelta(minutes=30)
"""The time without a message after which a process counts as ended. It holds for exchanges that all processes have
reached; they wait for each other without a limit, while one of them measures for hours."""

_LONGEST_PAUSE: Final = 0.5


@dataclass(frozen=True)
class ProcessGroup:
    """This process: number ``rank`` of ``world`` processes, which exchange tensors on ``device``."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    store: Any = None
    _met: Iterator[int] = field(default_factory=itertools.count, repr=False)

    @property
    def leads(self) -> bool:
        """Whether this is the leading process, which writes, prints and measures."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Return this process's share of ``items``: every ``world``-th."""
        return items[self.rank :: self.world]

    def gather(self, rows: Sequence[Sequence[int]], total: int, width: int) -> list[tuple[int, ...]]:
        """Return the ``total`` rows of all processes, each of ``width`` whole numbers; each contributes its
        :meth:`share`.
        """
        if self.world == 1:
            return [tuple(row) for row in rows]
        longest = -(-total // self.world)
        mine = torch.zeros(longest, width, dtype=torch.int64, device=self.device)
        if rows:
            mine[: len(rows)] = torch.tensor(rows, dtype=torch.int64)
        everyones = [torch.empty_like(mine) for _ in range(self.world)]
        dist.all_gather(everyones, mine)
        plain = [one.tolist() for one in everyones]
        return [tuple(plain[index % self.world][index // self.world]) for index in range(total)]

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum each parameter's gradient over the processes; it stays None if no process has one."""
        if self.world == 1:
            return
        everything = list(parameters)
        touched = torch.tensor([one.grad is not None for one in everything], dtype=torch.uint8, device=self.device)
        dist.all_reduce(touched, dist.ReduceOp.MAX)
        shared = [one for one, used in zip(everything, touched.tolist(), strict=True) if used]
        parts = [(torch.zeros_like(one) if one.grad is None else one.grad).reshape(-1) for one in shared]
        # One exchange for all parameters, since each exchange has a latency.
        flat = torch.cat(parts)
        dist.all_reduce(flat)
        for one, part in zip(shared, torch.split(flat, [len(part) for part in parts]), strict=True):
            if one.grad is None:
                one.grad = torch.empty_like(one)
            one.grad.copy_(part.view(one.shape))

    def add(self, value: Tensor) -> Tensor:
        """Return the sum of ``value`` over the processes."""
        if self.world == 1:
            return value
        total = value.clone()
        dist.all_reduce(total)
        return total

    def meet(self) -> None:
        """Wait, without a limit, until all processes have come here.

        torchrun ends the processes that wait if another one ends.
        """
        if self.world == 1 or self.store is None:
            return
        number, pause = next(self._met), 0.01
        self.store.set(f"meeting-{number}-{self.rank}", "here")
        others = [f"meeting-{number}-{other}" for other in range(self.world)]
        while not self.store.check(others):
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def broadcast(self, data: bytes | None) -> bytes:
        """Return the leading process's ``data`` in every process; that of the others is ignored."""
        if self.world == 1:
            return data or b""
        self.meet()
        size = torch.tensor([len(data or b"") if self.leads else 0], device=self.device)
        dist.broadcast(size, 0)
        content = torch.zeros(int(size), dtype=torch.uint8, device=self.device)
        if self.leads and data:
            content.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        dist.broadcast(content, 0)
        return content.cpu().numpy().tobytes()


SINGLE_PROCESS: Final = ProcessGroup()


def restarted() -> bool:
    """Return whether torchrun has restarted this process because a process ended."""
    return _restarts() > 0


def _restarts() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


@contextmanager
def joined(device: str) -> Iterator[ProcessGroup]:
    """Yield the group of the processes that torchrun started, for the duration of the block.

    ``device`` is where weights are trained; with cuda each process gets a GPU of its own.
    """
    if launched() == 1:
        yield SINGLE_PROCESS
        return
    on_gpu = device.startswith("cuda")
    place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(place)
    store, rank, world = next(dist.rendezvous("env://", timeout=TIMEOUT))  # type: ignore[attr-defined]
    # torchrun may keep its store over restarts, with the addresses of processes that have ended.
    own = dist.PrefixStore(f"cars-hw/{_restarts()}", store)  # type: ignore[attr-defined]
    dist.init_process_group("nccl" if on_gpu else "gloo", store=own, rank=rank, world_size=world, timeout=TIMEOUT)
    try:
        group = ProcessGroup(rank, world, place, own)
        yield group
        # A process ends only when the others need nothing more from it. The leading one may train and measure.
        group.meet()
        dist.barrier()
    finally:
        dist.destroy_process_group()
