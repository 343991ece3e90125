"""Recordings of work on a GPU: CUDA graphs, which are launched as a whole."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable

import torch

from cars_hw.training.memory import is_out_of_memory

Replay = Callable[[], object]
Recorder = Callable[[Callable[[], None]], Replay]
"""Runs a function once, and returns a function that repeats the work on the same tensors.

Where the work can be run but not recorded, it raises :class:`RecordingRefusedError` after the work has run once.
"""


class RecordingRefusedError(RuntimeError):
    """Work that ran once cannot be recorded; the message is the reason, in one line."""


class CudaRecorder:
    """Records CUDA graphs on ``device``, all in one pool of memory and on one stream of their own.

    The work has run before, so that the libraries have chosen their algorithms and loaded their kernels. Only the
    first recording runs it once more, because the libraries allocate a workspace for each stream.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        with torch.cuda.device(device):
            self.pool = torch.cuda.graph_pool_handle()
            self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._warm = False

    def __call__(self, work: Callable[[], None]) -> Replay:
        """Run ``work`` and return its replay.

        Raises:
            RecordingRefusedError: see :data:`Recorder`. What ``work`` raises when it is run is raised as it is, and
                so is an error of too little memory.
        """
        present = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(present)
        with torch.cuda.device(self.device), torch.cuda.stream(self.stream):
            warm, self._warm = self._warm, True
            if not warm:
                work()
            try:
                graph = self._with_memory(work)
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                if warm:
                    work()
                present.wait_stream(self.stream)
                raise RecordingRefusedError(one_line(error)) from error
            if warm:
                # A capture runs nothing.
                graph.replay()
        present.wait_stream(self.stream)
        replay: Replay = graph.replay
        return replay

    def _with_memory(self, work: Callable[[], None]) -> torch.cuda.CUDAGraph:
        """Return ``work`` as a graph, at the second try with an empty cache of memory."""
        try:
            return self._captured(work)
        except torch.OutOfMemoryError:
            # During a capture, the allocator cannot give back what it caches.
            torch.cuda.empty_cache()
            return self._captured(work)

    def _captured(self, work: Callable[[], None]) -> torch.cuda.CUDAGraph:
        """Return ``work`` as a graph.

        torch.cuda.graph collects garbage and empties the cache of memory before each capture, which takes longer
        than the capture. Here, garbage is not collected during a capture, because the end of a graph is not
        allowed then.
        """
        graph = torch.cuda.CUDAGraph()
        collecting = gc.isenabled()
        gc.disable()
        try:
            graph.capture_begin(pool=self.pool, capture_error_mode="thread_local")
            try:
                work()
            except BaseException:
                # The stream must not stay in the capture. The first error says more than the one of ending it.
                with contextlib.suppress(RuntimeError):
                    graph.capture_end()
                raise
            graph.capture_end()
        finally:
            if collecting:
                gc.enable()
        return graph


def one_line(error: Exception) -> str:
    """Return the message of ``error`` in one line of at most 200 characters, or its name if it has none."""
    return (" ".join(f"{error}".split()) or type(error).__name__)[:200]
