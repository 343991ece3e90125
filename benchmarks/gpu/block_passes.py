"""The part of the check on passes that are put together from recordings of blocks."""

from __future__ import annotations

import statistics
import time

import torch
from correctness import distance, gradients
from gpu_setting import Found, Gpu

from cars_hw.nn.device_kind import as_on
from cars_hw.training.recorded_passes import GraphedPasses


def blocks(gpu: Gpu) -> Found:
    """Compare passes of blocks with launched ones, and measure what the warm-up would gain, and the memory."""
    # On a CPU, too, the layers are those of a GPU.
    with as_on("cuda"):
        composed, launched = (gpu.weights(gpu.settings(), 4 * gpu.batch, replay=how) for how in ("blocks", "auto"))  # type: ignore[arg-type]
        images, labels = next(composed.batches.epoch(torch.Generator().manual_seed(0)))
        assert isinstance(composed.passes, GraphedPasses)
        # No architecture comes twice: whole passes are not recorded.
        people = gpu.architectures(4 if gpu.cpu else 200)
        later = people[len(people) // 2 :]
        worst = 0.0
        for one in people[: 2 * gpu.people]:
            worst = max(worst, distance(*(gradients(made, images, labels, one) for made in (composed, launched))))
        free = 0 if gpu.cpu else torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()
        began, recorded = time.perf_counter(), len(composed.passes.blocks or ())
        for one in people[2 * gpu.people : len(people) // 2]:
            composed.passes.run(images, labels, one, 1.0)
        gpu.wait()
        recordings = len(composed.passes.blocks or ()) - recorded
        seconds = time.perf_counter() - began
        taken = 0 if gpu.cpu else free - torch.cuda.mem_get_info()[0] - torch.cuda.memory_reserved()
        whole, alone = (
            [gpu.ms(lambda one=one, made=made: made.passes.run(images, labels, one, 1.0)) for one in later]  # type: ignore[misc]
            for made in (composed, launched)
        )
    return {
        "passes of blocks against launched ones": worst,
        "passes of blocks are right": worst < 1e-2,
        "blocks recorded": len(composed.passes.blocks or ()),
        "recording a block, ms at most": 1e3 * seconds / max(1, recordings),
        "the driver's bytes of a block": taken / max(1, recordings),
        "the first pass of an architecture, of blocks, ms": statistics.median(whole),
        "the same, launched, ms": statistics.median(alone),
    }
