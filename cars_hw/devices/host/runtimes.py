"""Devices of this machine: ONNX Runtime and LiteRT on its processor."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cars_hw.child_processes import python_command
from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices.energy import PowerWindow, power_of
from cars_hw.devices.host.conditions import Watch, host_conditions, now
from cars_hw.devices.host.litert_runtime import runtime as litert_runtime
from cars_hw.devices.host.providers import installed_wheel
from cars_hw.devices.host.rapl import Rapl, Sampler
from cars_hw.devices.host.topology import package_of, pin
from cars_hw.devices.host.worker import Worker
from cars_hw.devices.protocol import ModelFormat, Sample, SessionCounter
from cars_hw.errors import DeviceError, InputError


class HostDevice:
    """A runtime in a fresh process for each block, pinned to one core per thread.

    ``time_limit_s`` is the time limit of one session in seconds. ``worker`` is the command of the process, called
    with ``--threads`` and ``--cores``; None is that of the class.

    Raises:
        InputError: less than one thread, or more than this process may use cores.
    """

    name: str
    model_format: ModelFormat
    module: str

    def __init__(
        self, threads: int = 1, *, time_limit_s: float = 120.0, worker: Sequence[str] | None = None
    ) -> None:
        if threads < 1:
            raise InputError(f"threads must be at least 1, not {threads}")
        pin(threads)
        self._threads = threads
        self._time_limit_s = time_limit_s
        self._worker = tuple(worker or python_command(self.module))

    def runtime(self) -> str:
        """Return the runtime's name and version.

        Raises:
            DeviceError: it is not installed.
        """
        raise NotImplementedError

    def conditions(self) -> dict[str, Any]:
        """Return the conditions; ``pinned`` is the list of cores, or says that this system cannot pin.

        ``siblings`` are the other hardware threads of the pinned cores, ``cpuset`` the cores that this process may
        use (None: all), and ``cpu_quota`` is the share that a container may use, in cores (None: no limit).

        Raises:
            InputError: as :func:`cars_hw.devices.host.topology.pin`, for the number of threads.
        """
        return {
            **host_conditions(),
            "runtime": self.runtime(),
            "threads": self._threads,
            **pin(self._threads).conditions(),
        }

    def run(
        self, models: Sequence[Path], plan: MeasurePlan, seed: int, on_session: SessionCounter | None = None
    ) -> list[Sample]:
        """Return one sample of each of ``models``, all from one fresh process; see :class:`Device`.

        Raises:
            DeviceError: a file that is missing or that the runtime cannot run, a worker that crashes or hangs.
            InputError: see :meth:`conditions`.
        """
        for model in models:
            if not model.is_file():
                raise DeviceError(f"{self.name}: there is no model file {model}")
        taken = []
        with Worker(
            [*self.command(), "--cores", json.dumps(pin(self._threads).cores)],
            device_name=self.name,
            time_limit_s=self._time_limit_s,
        ) as worker:
            for done, model in enumerate(models, start=1):
                taken.append(self._sample(worker.ask(_request(model, plan, seed), str(model)), model))
                if on_session is not None:
                    on_session(done)
        return taken

    def energy_meter(self) -> str:
        """Return what counts the energy; see :class:`cars_hw.devices.energy.EnergyDevice`.

        Raises:
            DeviceError: nothing does, or it must not be read.
        """
        return self._rapl().describe()

    def spend(self, model: Path | None, seconds: float) -> PowerWindow:
        """Run ``model`` or nothing; see :class:`cars_hw.devices.energy.EnergyDevice`.

        Raises:
            DeviceError: as :meth:`energy_meter` and :meth:`run`, or a counter tells what cannot be.
        """
        sampler = Sampler(self._rapl())
        if model is None:
            watch = Watch()
            with sampler:
                time.sleep(seconds)
            readings = sampler.taken()
            found = power_of(readings, readings[0].second, readings[-1].second)
            return found._replace(other_load=watch.conditions()["other_load"])
        if not model.is_file():
            raise DeviceError(f"{self.name}: there is no model file {model}")
        request = {**_request(model, MeasurePlan(), 0), "spend_seconds": seconds}
        with (
            Worker(
                [*self.command(), "--cores", json.dumps(pin(self._threads).cores)],
                device_name=self.name,
                time_limit_s=self._time_limit_s + seconds,
            ) as worker,
            sampler,
        ):
            answer = worker.ask(request, str(model))
        runs, began, ended = (answer.get(name) for name in ("runs", "began", "ended"))
        if not (isinstance(runs, int) and runs > 0 and isinstance(began, float) and isinstance(ended, float)):
            raise DeviceError(f"{self.name}: the worker gave no runs for {model}: {answer}")
        return power_of(sampler.taken(), began, ended)._replace(
            runs=runs, run_seconds=(ended - began) / runs, other_load=answer.get("other_load")
        )

    def _rapl(self) -> Rapl:
        cores = pin(self._threads).cores
        return Rapl(package_of(cores[0]) if cores else 0)

    def release(self) -> None:
        """Do nothing: the process of a block ends with the block."""

    def command(self) -> list[str]:
        """Return the command of the worker, but for its cores."""
        return [*self._worker, "--threads", str(self._threads)]

    def _sample(self, answer: dict[str, Any], model: Path) -> Sample:
        ms = answer.get("ms")
        if not isinstance(ms, float) or not ms > 0:
            raise DeviceError(f"{self.name}: the worker gave no latency for {model}: {answer}")
        conditions = (answer.get(name) for name in ("load", "clock_mhz", "other_load"))
        return Sample(round(ms, 6), now("milliseconds"), *conditions)


class OrtDevice(HostDevice):
    """ONNX Runtime's CPU provider."""

    name = "ort"
    model_format: ModelFormat = "onnx"
    module = "cars_hw.devices.host.ort_worker"

    def runtime(self) -> str:
        """Return ONNX Runtime's version; see :meth:`HostDevice.runtime`."""
        wheel, version = installed_wheel()
        if not wheel:
            raise DeviceError(f"device '{self.name}' needs ONNX Runtime; install it: pip install onnxruntime")
        return f"onnxruntime {version}"


class LitertDevice(HostDevice):
    """LiteRT with XNNPACK."""

    name = "litert"
    model_format: ModelFormat = "tflite"
    module = "cars_hw.devices.host.litert_worker"

    def runtime(self) -> str:
        """Return LiteRT's version; see :meth:`HostDevice.runtime`."""
        found = litert_runtime()
        if found is None:
            raise DeviceError("device 'litert' needs LiteRT; install it: pip install ai-edge-litert")
        return found


def _request(model: Path, plan: MeasurePlan, seed: int) -> dict[str, Any]:
    return {
        "model": str(model.resolve()),
        "seed": seed,
        "warmup_seconds": plan.warmup_seconds,
        "warmup_runs": plan.warmup_runs,
        "min_runs": plan.min_runs,
        "min_seconds": plan.min_seconds,
        "max_seconds": plan.max_seconds,
        "quantile": plan.quantile,
    }
