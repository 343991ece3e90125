"""ONNX Runtime's execution providers as devices: ``ort:cuda``, ``ort:openvino`` and the others."""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices.host.providers import Provider, installed_wheel
from cars_hw.devices.host.runtimes import OrtDevice
from cars_hw.devices.host.worker import Worker
from cars_hw.devices.protocol import Sample
from cars_hw.errors import DeviceError, InputError

CPU: Final = "CPUExecutionProvider"

TRIAL: Final = bytes.fromhex(
    "080812003a3b0a0c0a0178120179220452656c751201675a130a0178120e0a0c080112080a0208010a02080462130a0179120e0a0c0801"
    "12080a0208010a02080442040a00100d"
)
"""A model of ONNX: the rectified values of four numbers."""

TRIAL_PLAN: Final = MeasurePlan(
    sessions=1, min_runs=1, min_seconds=0.0, max_seconds=0.1, warmup_runs=1, warmup_seconds=0.0
)

START_S: Final = 60.0
"""The time limit for a wheel of ONNX Runtime to load, in seconds."""


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def installed_providers() -> list[str]:
    """Return ONNX Runtime's names of the providers that the installed wheel has; none without ONNX Runtime.

    A process of its own is asked, since this one imports no runtime.

    Raises:
        DeviceError: the wheel does not load.
        InputError: as :class:`cars_hw.devices.host.runtimes.HostDevice`.
    """
    device = OrtDevice()
    if not installed_wheel()[0]:
        return []
    with Worker([*device.command(), "--cores", "null"], device_name="ort", time_limit_s=START_S) as worker:
        return list(map(str, worker.hello.get("providers", ())))


class Division(NamedTuple):
    """How a model was divided: its number of nodes, and how many of each kind ran elsewhere, by provider."""

    nodes: int
    elsewhere: dict[str, dict[str, int]]

    @classmethod
    def of(cls, ran_on: Mapping[str, Mapping[str, int]], provider: str) -> Self:
        """Return the division of a model for ``provider`` from the nodes of each provider by kind."""
        return cls(
            sum(sum(counts.values()) for counts in ran_on.values()),
            {name: dict(counts) for name, counts in ran_on.items() if name != provider},
        )

    @property
    def nodes_elsewhere(self) -> int:
        """The number of nodes that another provider ran."""
        return sum(sum(counts.values()) for counts in self.elsewhere.values())


def fallback_text(divisions: Collection[Division]) -> str | None:
    """Return what of models with these divisions ran elsewhere, such as "2 of 60 models ran partly on the CPU:
    7 of their 310 operations (TopK 7)"; None if nothing did."""
    fallen = [one for one in divisions if one.elsewhere]
    if not fallen:
        return None
    wholly = sum(one.nodes_elsewhere == one.nodes for one in fallen)
    names = {name for one in fallen for name in one.elsewhere}
    where = " and ".join(
        [*(name.removesuffix("ExecutionProvider") for name in sorted(names - {CPU})), *["the CPU"] * (CPU in names)]
    )
    how = "wholly" if wholly == len(fallen) else f"partly ({wholly} wholly)" if wholly else "partly"
    counted: Counter[str] = Counter()
    for counts in (counts for one in fallen for counts in one.elsewhere.values()):
        counted.update(counts)
    kinds = ", ".join(
        f"{name} {number}" for name, number in sorted(counted.items(), key=lambda one: (-one[1], one[0]))
    )
    return (
        f"{len(fallen)} of {len(divisions)} models ran {how} on {where}: {sum(counted.values())} of their "
        f"{sum(one.nodes for one in fallen)} operations ({kinds})"
    )


class AcceleratorDevice(OrtDevice):
    """ONNX Runtime with another execution provider than the CPU's, which runs what the provider cannot.

    ``kind`` is the kind of device of a provider that has several. The latencies are those from an image in this
    machine's memory to the result there. ``log`` is called with a line that says what ran on the CPU.

    Raises:
        InputError: as :class:`cars_hw.devices.host.runtimes.HostDevice`.
    """

    def __init__(
        self,
        provider: Provider,
        kind: str = "",
        threads: int = 1,
        *,
        time_limit_s: float | None = None,
        worker: Sequence[str] | None = None,
        log: Callable[[str], None] = _to_stderr,
    ) -> None:
        super().__init__(threads, time_limit_s=time_limit_s or provider.time_limit_s, worker=worker)
        self._provider, self._kind, self._log = provider, kind, log
        self.name = f"ort:{provider.name}" + (f":{kind}" if kind and kind != provider.kinds[0] else "")
        self._divided: dict[Path, Division] = {}
        self._reported: tuple[str, ...] = ()

    def runtime(self) -> str:
        """Return the wheel with its version, the provider and the kind of device.

        Raises:
            DeviceError: ONNX Runtime is not installed.
        """
        super().runtime()
        return " ".join((*installed_wheel(), self._provider.provider, self._kind)).rstrip()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What of the measured models did not run on the provider; empty if everything did."""
        text = fallback_text(self._divided.values())
        return () if text is None else (text,)

    def conditions(self) -> dict[str, Any]:
        """Return those of the host, and ``cpu_fallback`` and ``warnings``: what did not run on the provider."""
        fallback = "nothing" if self._divided else None
        return {
            **super().conditions(),
            "cpu_fallback": fallback_text(self._divided.values()) or fallback,
            "warnings": list(self.warnings),
        }

    def learnt(self) -> dict[str, Any]:
        """Return which kinds of operations did not run on the provider, as ``warnings``.

        They stay the same while further models are measured, as counts do not. So they can be joined.
        """
        wanted = self._provider.provider
        found = {
            (kind, name)
            for one in self._divided.values()
            for name, kinds in one.elsewhere.items()
            for kind in kinds
        }
        texts = [f"{kind} ran on {name} in place of {wanted}" for kind, name in sorted(found)]
        return {"warnings": texts} if texts else {}

    def release(self) -> None:
        """Say what did not run on the provider, if that is news."""
        if self.warnings != self._reported:
            for text in self.warnings:
                self._log(f"{self.name}: {text}")
            self._reported = self.warnings

    def energy_meter(self) -> str:
        """Raise an InputError: the counters of the processor do not see an accelerator."""
        raise InputError(f"{self.name}: the energy of an accelerator is not measured, only that of the processor")

    def require(self) -> None:
        """Check that the installed wheel has the provider.

        Raises:
            DeviceError: it has not, and the message says which wheel has; or the wheel does not load.
        """
        if self._provider.provider in installed_providers():
            return
        package, version = installed_wheel()
        has = f"{package} {version} has no" if package else "ONNX Runtime is not installed with its"
        remedy = self._provider.install(package)
        raise DeviceError(f"device '{self.name}': {has} {self._provider.provider}; {remedy}")

    def require_working(self) -> None:
        """Run a small model.

        Raises:
            DeviceError: the provider does not start.
        """
        with tempfile.TemporaryDirectory(prefix="cars-hw-") as folder:
            model = Path(folder) / "trial.onnx"
            model.write_bytes(TRIAL)
            self.run([model], TRIAL_PLAN, 0)
        self._divided.clear()

    def command(self) -> list[str]:
        """Return the command of the worker, with the providers in the order in which they are asked."""
        options = self._provider.options(self._kind, self._threads)
        providers = [(self._provider.provider, options), *((name, {}) for name in self._provider.beside)]
        return [*super().command(), "--providers", json.dumps(providers)]

    def _sample(self, answer: dict[str, Any], model: Path) -> Sample:
        sample = super()._sample(answer, model)
        self._divided[model] = Division.of(answer.get("ran_on", {}), self._provider.provider)
        return sample
