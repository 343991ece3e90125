"""A run on disk: plain, readable files, each written in one step.

::

    run.json         configuration, versions, seed
    config.toml      settings of the search, for ``cars-hw search --config``
    steps.jsonl      one line for each step: its time, command and settings
    tables/          copies of the latency tables that the search used
    history.jsonl    one line for each generation
    front.json       the Pareto front
    checkpoint/      the state of the search and of unfinished trainings
    trained/         weights of trained networks, each with a JSON beside it
    models/          exported models, each with its card beside it
    verified.json    latencies of the exported models on the device
    ranking.json     accuracies under shared weights and standalone; ``ranking/`` holds the trainings
    baselines.json   the comparison with other strategies; ``baselines/`` holds their searches
    report.html
    tensorboard/     figures for TensorBoard, with ``--tensorboard``
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from cars_hw.config.codec import read_json, structure, unstructure
from cars_hw.config.command_line import given_command_line
from cars_hw.config.files import to_json, write_json, write_text
from cars_hw.config.toml import without_none
from cars_hw.config.training import Recipe
from cars_hw.errors import RunError
from cars_hw.latency import LatencyTable
from cars_hw.pipeline.latency_target import LatencyEstimate, LatencyTarget
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec

SCHEMA = 2

Record = TypeVar("Record")


@dataclass(frozen=True)
class FrontNetwork:
    """A network of the front. ``accuracy`` is a fraction of the validation images, under shared weights.

    ``parameters`` and ``multiply_adds`` are those of the exported file. ``published_parameters`` and
    ``published_multiply_adds`` follow the rule of published tables, see :func:`cars_hw.nn.cost.published_cost`;
    None where they were not counted.
    """

    name: str
    genotype: Genotype
    accuracy: float
    parameters: int
    multiply_adds: int
    latency_estimates: tuple[LatencyEstimate, ...]
    published_parameters: int | None = None
    published_multiply_adds: int | None = None


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained network: ``accuracy`` is a fraction of the test images.

    Its weights are those after ``best_epoch`` (counted from 1). If images were held out, ``held_out_accuracy``
    decided which epoch is the best. ``recipe`` stores the share of held-out images and whether the weights are
    moving averages. ``data`` is the source of the images, and ``inherit`` tells whether the training started from
    the SuperNet's weights, if their shapes fit.
    """

    name: str
    genotype: Genotype
    accuracy: float
    loss: float
    recipe: Recipe
    seed: int
    best_epoch: int
    held_out_accuracy: float | None
    data: str
    inherit: bool


@dataclass(frozen=True)
class Step:
    """A step that was run: ``time`` is when, ``version`` that of cars-hw, ``folder`` the one that it was run in.

    ``arguments`` are those of the command, without the program's name; None for a step that was run from Python.
    ``settings`` are all settings of the step, those that are None left out.
    """

    name: str
    time: str
    version: str
    folder: str
    arguments: tuple[str, ...] | None
    settings: dict[str, Any]

    @property
    def command(self) -> str | None:
        """The command, quoted for a shell."""
        return None if self.arguments is None else shlex.join(("cars-hw", *self.arguments))


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, configuration: dict[str, Any], about: dict[str, Any]) -> RunFolder:
        """Begin a run in the new folder ``path``.

        Raises:
            RunError: ``path`` exists and is not an empty folder.
        """
        cls.require_free(path)
        run = cls(path)
        write_json(run.path / "run.json", {"schema": SCHEMA, **about, "configuration": configuration})
        return run

    @staticmethod
    def require_free(path: Path) -> None:
        """Check that a run can begin in ``path``.

        Raises:
            RunError: ``path`` exists and is not an empty folder.
        """
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise RunError(f"{path} exists", remedy="resume-or-other-folder")

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open the run at ``path``.

        Raises:
            RunError: ``path`` is not a run folder, or is of another schema.
        """
        run = cls(path)
        if not (path / "run.json").is_file():
            raise RunError(f"{path} is not a run folder: it has no run.json", remedy="search")
        schema = run._read("run.json").get("schema")
        if schema != SCHEMA:
            raise RunError(f"{path} has schema {schema}; this version of cars-hw reads {SCHEMA}")
        return run

    def sweep(self) -> None:
        """Remove the temporary files of a run that was killed during a write."""
        # Only by the names that `replacing` gives them: other hidden files may be the user's.
        for target in (self.path / "history.jsonl", self.path / "front.json", self.checkpoint):
            for leftover in target.parent.glob(f".{target.name}.*"):
                leftover.unlink(missing_ok=True)
        for leftover in (self.path / "tables").glob(".*.json.*"):
            leftover.unlink(missing_ok=True)

    @property
    def configuration(self) -> dict[str, Any]:
        """The configuration of the run."""
        configuration = self._read("run.json").get("configuration")
        if not isinstance(configuration, dict):
            raise RunError(f"{self.path / 'run.json'} has no configuration; the run is unusable")
        return configuration

    @property
    def about(self) -> dict[str, Any]:
        """The date and the versions of the run: the content of ``run.json`` beside the configuration."""
        return {name: value for name, value in self._read("run.json").items() if name != "configuration"}

    def require(self, configuration: dict[str, Any]) -> None:
        """Check that the run was started with ``configuration``.

        Raises:
            RunError: it was not; the message names the first setting that differs.
        """
        difference = _first_difference(self.configuration, json.loads(to_json(configuration)))
        if difference is not None:
            name, before, now = difference
            raise RunError(f"{self.path} was started with {name} = {before}, not {now}", remedy="same-settings")

    @property
    def network(self) -> NetworkSpec:
        """The network that the run exports its genotypes as."""
        where = f"{self.path / 'run.json'}: network"
        return structure(self.configuration.get("network"), NetworkSpec, where, RunError)

    @property
    def checkpoint(self) -> Path:
        """The search's checkpoint."""
        return self.path / "checkpoint" / "search.pt"

    def table_path(self, index: int) -> Path:
        """The copy of the table with this index."""
        return self.path / "tables" / f"{index}.json"

    def target(self, index: int) -> LatencyTarget:
        """Return the latency target with this index; its device is not opened.

        Raises:
            RunError: the run has no such target.
            TableError: its table cannot be read.
        """
        try:
            record = self.configuration["targets"][index]
            limit_ms, level, state = record["limit_ms"], record["level"], record["state"]
        except (KeyError, IndexError, TypeError) as error:
            raise RunError(f"{self.path / 'run.json'} has no complete latency target {index}: {error!r}") from error
        return LatencyTarget(LatencyTable.read(self.table_path(index)), limit_ms, level=level, state=state)

    def targets(self) -> tuple[LatencyTarget, ...]:
        """Return the latency targets, in the order of the tables.

        Raises:
            RunError: the configuration does not tell them.
            TableError: a table cannot be read.
        """
        return tuple(self.target(index) for index, _ in enumerate(self.configuration.get("targets", ())))

    def weights_path(self, name: str) -> Path:
        """The exported weights of the trained network ``name``."""
        return self.path / "trained" / f"{name}.pt"

    def last_weights_path(self, name: str) -> Path:
        """The weights of ``name`` after its last epoch, where an earlier one was better."""
        return self.path / "trained" / f"{name}.last.pt"

    def training_checkpoint(self, name: str) -> Path:
        """The checkpoint of the unfinished training of ``name``."""
        return self.path / "checkpoint" / f"train-{name}.pt"

    def model_path(self, name: str, model_format: str) -> Path:
        """The exported model ``name``."""
        return self.path / "models" / f"{name}.{model_format}"

    @property
    def report(self) -> Path:
        """The report."""
        return self.path / "report.html"

    @property
    def config_file(self) -> Path:
        """The settings of the search, for ``cars-hw search --config``."""
        return self.path / "config.toml"

    def add_step(self, name: str, settings: object) -> None:
        """Note that the step ``name`` was run with ``settings``, and by which command."""
        step = Step(
            name,
            datetime.now(UTC).isoformat(timespec="seconds"),
            version("cars-hw"),
            str(Path.cwd()),
            given_command_line(),
            without_none(unstructure(settings)),
        )
        path = self.path / "steps.jsonl"
        before = path.read_text(encoding="utf-8") if path.is_file() else ""
        write_text(path, before + json.dumps(unstructure(step), allow_nan=False, ensure_ascii=False) + "\n")

    def steps(self) -> list[Step]:
        """Return the steps that were run, in their order.

        Raises:
            RunError: the file is damaged.
        """
        path = self.path / "steps.jsonl"
        if not path.is_file():
            return []
        try:
            lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        except ValueError as error:
            raise RunError(f"{path} is damaged: {error}") from error
        return list(structure(lines, tuple[Step, ...], f"{path} is damaged", RunError))

    def write_history(self, history: Sequence[dict[str, Any]]) -> None:
        """Write one line for each generation."""
        lines = (json.dumps(generation, allow_nan=False) + "\n" for generation in history)
        write_text(self.path / "history.jsonl", "".join(lines))

    def history(self) -> list[dict[str, Any]]:
        """Return the generations so far."""
        path = self.path / "history.jsonl"
        if not path.is_file():
            return []
        try:
            return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        except ValueError as error:
            raise RunError(f"{path} is damaged: {error}") from error

    def write_front(self, networks: Sequence[FrontNetwork], rejected: Sequence[FrontNetwork] = ()) -> None:
        """Write the front, and the networks that were ``rejected`` from it."""
        content = {
            "schema": SCHEMA,
            "networks": unstructure(list(networks)),
            "rejected": unstructure(list(rejected)),
        }
        write_json(self.path / "front.json", content)

    def front(self) -> list[FrontNetwork]:
        """Return the front.

        Raises:
            RunError: the search has not finished, or the file is damaged.
        """
        return self._networks("networks")

    def rejected(self) -> list[FrontNetwork]:
        """Return the networks that were rejected from the front because a device exceeded a limit.

        Raises:
            RunError: the search has not finished, or the file is damaged.
        """
        return self._networks("rejected")

    def _networks(self, which: str) -> list[FrontNetwork]:
        if not (self.path / "front.json").is_file():
            raise RunError(f"the search in {self.path} has not finished", remedy="finish-search")
        kept = self._read("front.json").get(which, [])
        where = f"{self.path / 'front.json'} is damaged: {which}"
        return list(structure(kept, tuple[FrontNetwork, ...], where, RunError))

    def write_trained(self, network: TrainedNetwork) -> None:
        """Write the record of the trained ``network``; its weights have been written before."""
        write_json(self._trained_path(network.name), unstructure(network))

    def forget_trained(self, name: str) -> None:
        """Remove the record of the training of ``name``, before its weights are replaced.

        Temporary files of a training that was killed during a write are removed as well.
        """
        paths = (self._trained_path(name), self.weights_path(name), self.last_weights_path(name))
        for path in paths:
            for leftover in path.parent.glob(f".{path.name}.*"):
                leftover.unlink(missing_ok=True)
        paths[0].unlink(missing_ok=True)
        paths[2].unlink(missing_ok=True)

    def _trained_path(self, name: str) -> Path:
        return self.path / "trained" / f"{name}.json"

    def trained(self) -> list[TrainedNetwork]:
        """Return the trained networks, by name."""
        return [
            structure(read_json(path, RunError), TrainedNetwork, f"{path} is damaged", RunError)
            for path in sorted((self.path / "trained").glob("*.json"))
        ]

    def write_verified(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write the measured latencies of the exported models."""
        write_json(self.path / "verified.json", {"schema": SCHEMA, "models": list(rows)})

    def verified(self) -> list[dict[str, Any]]:
        """Return the measured latencies of the exported models; empty before they were measured."""
        if not (self.path / "verified.json").is_file():
            return []
        return list(self._read("verified.json").get("models", []))

    def write_record(self, name: str, record: object) -> None:
        """Write ``record`` as the file ``name`` of the run: the result of a study of it."""
        write_json(self.path / name, {"schema": SCHEMA, **unstructure(record)})

    def record(self, name: str, cls: type[Record]) -> Record | None:
        """Return the ``cls`` in the file ``name`` that :meth:`write_record` wrote, None before.

        Raises:
            RunError: the file is damaged.
        """
        if not (self.path / name).is_file():
            return None
        content = self._read(name)
        content.pop("schema", None)
        return structure(content, cls, f"{self.path / name} is damaged", RunError)

    def _read(self, name: str) -> dict[str, Any]:
        return read_json(self.path / name, RunError)


def _first_difference(before: Any, now: Any, name: str = "") -> tuple[str, Any, Any] | None:  # noqa: ANN401
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(key for key in now if key not in before)]:
            inner = f"{name}.{key}" if name else key
            found = _first_difference(before.get(key), now.get(key), inner)
            if found is not None:
                return found
        return None
    return None if before == now else (name, before, now)
