"""ONNX Runtime on this machine's processor."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from cars_hw.devices.conditions import host_conditions, now, pin_to
from cars_hw.devices.protocol import MeasurePlan, ModelFormat, Progress, Sample
from cars_hw.devices.worker import Worker
from cars_hw.errors import DeviceError, InputError

WORKER: Final = (sys.executable, "-m", "cars_hw.devices.ort_worker")


class OrtDevice:
    """ONNX Runtime's CPU provider, in a fresh process a block, pinned to as many cores as it has threads.

    ``time_limit_s`` is how long one session of one model may take, in seconds; ``worker`` is the command that
    is started with ``--threads`` and ``--cores``.

    Raises:
        InputError: less than one thread.
    """

    name: Final = "ort"
    model_format: Final[ModelFormat] = "onnx"

    def __init__(self, threads: int = 1, *, time_limit_s: float = 120.0, worker: Sequence[str] = WORKER) -> None:
        if threads < 1:
            raise InputError(f"threads must be at least 1, not {threads}")
        self._threads = threads
        self._time_limit_s = time_limit_s
        self._worker = tuple(worker)

    def conditions(self) -> dict[str, Any]:
        """Return the conditions; ``pinned`` lists the cores, or says that they cannot be chosen here."""
        cores = pin_to(self._threads)
        return {
            **host_conditions(),
            "runtime": f"onnxruntime {metadata.version('onnxruntime')}",
            "threads": self._threads,
            "pinned": "not possible here" if cores is None else cores,
        }

    def run(
        self, models: Sequence[Path], plan: MeasurePlan, seed: int, progress: Progress | None = None
    ) -> list[Sample]:
        """Return one sample of each of ``models``, all from one fresh process; see :class:`Device`.

        Raises:
            DeviceError: a file that is missing or that the runtime cannot run, a worker that crashes or hangs.
        """
        for model in models:
            if not model.is_file():
                raise DeviceError(f"ort: there is no model file {model}")
        taken = []
        with Worker(self._command(), who="ort", time_limit_s=self._time_limit_s) as worker:
            for done, model in enumerate(models, start=1):
                taken.append(_sample(worker.ask(_request(model, plan, seed), str(model)), model))
                if progress is not None:
                    progress(done)
        return taken

    def _command(self) -> list[str]:
        return [*self._worker, "--threads", str(self._threads), "--cores", json.dumps(pin_to(self._threads))]


def _request(model: Path, plan: MeasurePlan, seed: int) -> dict[str, Any]:
    return {
        "model": str(model.resolve()),
        "seed": seed,
        "warmup_runs": plan.warmup_runs,
        "min_runs": plan.min_runs,
        "min_seconds": plan.min_seconds,
        "max_seconds": plan.max_seconds,
        "quantile": plan.quantile,
    }


def _sample(answer: dict[str, Any], model: Path) -> Sample:
    ms = answer.get("ms")
    if not isinstance(ms, float) or not ms > 0:
        raise DeviceError(f"ort: the worker gives no time for {model}: {answer}")
    return Sample(
        round(ms, 6),
        now(),
        *(answer.get(name) for name in ("load", "clock_mhz", "others")),
    )
