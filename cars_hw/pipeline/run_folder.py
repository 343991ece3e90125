"""A run on disk: plain, readable files, each written in one step.

Every file has a checksum that its reader verifies before it uses anything of it, except the report and the figures
for TensorBoard, which cars-hw only writes. Weights and models have theirs in the JSON beside them.

::

    run.json           configuration, versions, seed
    config.toml        settings of the search, for ``cars-hw search --config``
    data.json          classes, counts, normalisation, splits and digests of the images that the search used
    target-data.json   as data.json, for the images of the exported networks after a search with ``--proxy``
    data-changes.json  changes of the images that were accepted with ``--accept-changes``
    steps.jsonl        after a line with the checksum, one for each step: its time, command and settings
    tables/            copies of the latency tables that the search used
    start.json         what was taken from an earlier run, where the search started from one (``--from-run``)
    history.jsonl      after a line with the checksum, one for each generation
    final.json         the final stage of the search: its networks, and their results in each rung
    front.json         the Pareto front
    checkpoint/        the state of the search and of unfinished trainings
    trained/           weights of trained networks, each with a JSON beside it
    models/            exported models, each with its card beside it
    verified.json      latencies of the exported models on the device
    ranking.json       accuracies under shared weights and standalone; ``ranking/`` holds the trainings
    baselines.json     the comparison with other strategies; ``baselines/`` holds their searches
    comparison/        the comparison with published and random networks: ``front.json``, and what was trained
    report.html        the report of the run, one HTML page
    tensorboard/       figures for TensorBoard, with ``--tensorboard`` or ``--track tensorboard``
    mlflow/, wandb/    figures and files for these trackers, with ``--track``
    .lock              held by the command that writes to the run, and removed by it
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from cars_hw.config.codec import read_json, unstructure
from cars_hw.config.command_line import given_command_line
from cars_hw.config.evaluation import ClassCounts
from cars_hw.config.files import sweep
from cars_hw.config.lock import locked
from cars_hw.config.toml import without_none
from cars_hw.data.manifest import AcceptedChange, AcceptedChanges, DataManifest
from cars_hw.errors import RunError
from cars_hw.latency import LatencyTable
from cars_hw.pipeline.larger_networks import LargerNetworks
from cars_hw.pipeline.latency_target import LatencyTarget
from cars_hw.pipeline.networks import Front, FrontNetwork, Step, TrainedNetwork
from cars_hw.pipeline.records import (
    FinalStage,
    GenerationRecord,
    RunAbout,
    RunConfiguration,
    RunRecord,
    StartRecord,
    Verified,
    VerifiedModels,
)
from cars_hw.pipeline.run_consistency import (
    problem_of_data,
    problem_of_front,
    problem_of_history,
    problem_of_networks,
)
from cars_hw.pipeline.run_formats import (
    DATA,
    DATA_CHANGES,
    FINAL,
    FRONT,
    HISTORY,
    RESULT,
    RUN,
    START,
    STEPS,
    STUDY,
    TRAINED,
    VERIFIED,
)
from cars_hw.pipeline.same_settings import first_difference
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.version import own_version

LOCK: Final = ".lock"

Record = TypeVar("Record")


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, configuration: RunConfiguration, about: RunAbout) -> RunFolder:
        """Begin a run in the new folder ``path``.

        Raises:
            RunError: ``path`` exists and is not an empty folder.
        """
        cls.require_free(path)
        run = cls(path)
        RUN.write_record(run.path / "run.json", RunRecord(about, configuration))
        return run

    @staticmethod
    def require_free(path: Path) -> None:
        """Check that a run can begin in ``path``.

        Raises:
            RunError: ``path`` exists and is not an empty folder.
        """
        if path.exists() and (not path.is_dir() or any(one.name != LOCK for one in path.iterdir())):
            raise RunError(f"{path} exists", remedy="resume-or-other-folder")

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open the run at ``path``.

        Raises:
            RunError: ``path`` is not a run folder, is of another schema, or its ``run.json`` is damaged.
        """
        run = cls(path)
        if not (path / "run.json").is_file():
            raise RunError(f"{path} is not a run folder: it has no run.json", remedy="search")
        try:
            _ = run.record_of_run
        except RunError as error:
            if not _has_no_checksums(path / "run.json"):
                raise
            raise RunError(
                f"{path} was made by an older cars-hw, whose files have no checksums; search again with this "
                "version, or use the version that made it"
            ) from error
        return run

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for writing while the block runs, and first remove what killed processes left.

        Raises:
            RunError: another process writes to the run.
        """
        with locked(self.path / LOCK, f"the run {self.path}"):
            # A report may be written at any time.
            sweep(self.path, keep=self.report.name)
            yield

    @property
    def record_of_run(self) -> RunRecord:
        """The content of ``run.json``.

        Raises:
            RunError: it is damaged, or of another schema.
        """
        return RUN.read_record(self.path / "run.json", RunRecord)

    @property
    def configuration(self) -> RunConfiguration:
        """The configuration of the run."""
        return self.record_of_run.configuration

    @property
    def about(self) -> RunAbout:
        """The date and the versions of the run."""
        return self.record_of_run.about

    def require(self, configuration: RunConfiguration) -> None:
        """Check that the run was started with ``configuration``.

        Its images, and the run that it started from, may lie elsewhere now.

        Raises:
            RunError: it was not; the message names the first setting that differs.
        """
        difference = first_difference(self.configuration, configuration)
        if difference is not None:
            name, before, now = difference
            raise RunError(f"{self.path} was started with {name} = {before}, not {now}", remedy="same-settings")

    @property
    def data_path(self) -> Path:
        """The facts of the images that the search used."""
        return self.path / "data.json"

    @property
    def target_data_path(self) -> Path:
        """The facts of the images that networks are trained on, where the search was on others."""
        return self.path / "target-data.json"

    @property
    def data(self) -> DataManifest:
        """The facts of the images that the search used.

        Raises:
            RunError: the file is missing, damaged, or does not fit the run.
        """
        manifest = DATA.read_record(self.data_path, DataManifest)
        if not self.configuration.proxy:
            self._require_fit(self.data_path, manifest)
        return manifest

    @property
    def training_data(self) -> DataManifest:
        """The facts of the images that networks are trained on, which a model's classes and normalisation are from.

        Raises:
            RunError: the file is missing, damaged, or does not fit the run.
        """
        path = self.training_data_path
        if path == self.data_path:
            return self.data
        manifest = DATA.read_record(path, DataManifest)
        self._require_fit(path, manifest)
        return manifest

    @property
    def training_data_path(self) -> Path:
        """The facts of the images that networks are trained on: those of the search, unless there are others."""
        return self.target_data_path if self.target_data_path.is_file() else self.data_path

    def write_data(self, manifest: DataManifest) -> None:
        """Write the facts of the images that the search uses."""
        DATA.write_record(self.data_path, manifest)

    def write_target_data(self, manifest: DataManifest) -> None:
        """Write the facts of the images that networks are trained on."""
        DATA.write_record(self.target_data_path, manifest)

    def data_changes(self) -> list[AcceptedChange]:
        """Return the changes of the images that were accepted, in their order.

        Raises:
            RunError: the file is damaged.
        """
        path = self.path / "data-changes.json"
        return list(DATA_CHANGES.read_record(path, AcceptedChanges).accepted) if path.is_file() else []

    def add_data_change(self, change: AcceptedChange) -> None:
        """Note that changes of the images were accepted."""
        known = AcceptedChanges((*self.data_changes(), change))
        DATA_CHANGES.write_record(self.path / "data-changes.json", known)

    def _require_fit(self, path: Path, manifest: DataManifest) -> None:
        problem = problem_of_data(manifest, self.configuration)
        if problem is not None:
            raise RunError(f"{path} is damaged: {problem}", remedy=DATA.remedy)

    @property
    def network(self) -> NetworkSpec:
        """What all networks of the run have in common: resolution, channels of an image, classes, and stem.

        In a search of one size it is the network of every genotype, and in a search over sizes the largest one.
        """
        return self.configuration.network

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
            TableError: its table cannot be read.
        """
        record = self.configuration.targets[index]
        table = LatencyTable.read(self.table_path(index))
        return LatencyTarget(
            table, record.limit_ms, level=record.level, state=record.state, at_least_ms=record.at_least_ms
        )

    def targets(self) -> tuple[LatencyTarget, ...]:
        """Return the latency targets, in the order of the tables.

        Raises:
            TableError: a table cannot be read.
        """
        return tuple(self.target(index) for index, _ in enumerate(self.configuration.targets))

    def weights_path(self, name: str) -> Path:
        """The exported weights of the trained network ``name``."""
        return self.path / "trained" / f"{name}.safetensors"

    def last_weights_path(self, name: str) -> Path:
        """The weights of ``name`` after its last epoch, where an earlier one was better."""
        return self.path / "trained" / f"{name}.last.safetensors"

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
            own_version(),
            str(Path.cwd()),
            given_command_line(),
            without_none(unstructure(settings)),
        )
        STEPS.write_lines(self._steps_path, [*map(unstructure, self.steps()), unstructure(step)])

    @property
    def _steps_path(self) -> Path:
        return self.path / "steps.jsonl"

    def steps(self) -> list[Step]:
        """Return the steps that were run, in their order.

        Raises:
            RunError: the file is damaged.
        """
        if not self._steps_path.is_file():
            return []
        lines = STEPS.read_lines(self._steps_path)
        return list(STEPS.structured(self._steps_path, lines, tuple[Step, ...]))

    @property
    def start_path(self) -> Path:
        """What the search took from an earlier run."""
        return self.path / "start.json"

    def write_start(self, record: StartRecord) -> None:
        """Write what the search took from an earlier run."""
        START.write_record(self.start_path, record)

    def start(self) -> StartRecord | None:
        """Return what the search took from an earlier run; None if it began with fresh weights.

        Raises:
            RunError: the file is damaged.
        """
        return START.read_record(self.start_path, StartRecord) if self.start_path.is_file() else None

    def write_history(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Write one line for each generation."""
        HISTORY.write_lines(self.path / "history.jsonl", history)

    def history(self) -> list[dict[str, Any]]:
        """Return the generations so far, each in the form of a :class:`GenerationRecord`.

        Raises:
            RunError: the file is damaged, or is not of this run.
        """
        path = self.path / "history.jsonl"
        if not path.is_file():
            return []
        lines = HISTORY.read_lines(path)
        generations = HISTORY.structured(path, lines, tuple[GenerationRecord, ...])
        problem = problem_of_history(generations, self.configuration)
        if problem is not None:
            raise RunError(f"{path} is damaged: {problem}", remedy=HISTORY.remedy)
        return lines

    def write_front(
        self,
        networks: Sequence[FrontNetwork],
        rejected: Sequence[FrontNetwork] = (),
        larger: Sequence[LargerNetworks] = (),
    ) -> None:
        """Write the front, the networks that were ``rejected`` from it, and what is known of ``larger`` ones."""
        FRONT.write_record(self.path / "front.json", Front(tuple(networks), tuple(rejected), tuple(larger)))

    def front(self) -> list[FrontNetwork]:
        """Return the front.

        Raises:
            RunError: the search has not finished, or the file is damaged.
        """
        return list(self._front.networks)

    def rejected(self) -> list[FrontNetwork]:
        """Return the networks that were rejected from the front because a device exceeded a limit.

        Raises:
            RunError: the search has not finished, or the file is damaged.
        """
        return list(self._front.rejected)

    def larger(self) -> list[LargerNetworks]:
        """Return what the final stage trained that uses more of the budgets; empty if the front uses one of them.

        Raises:
            RunError: the search has not finished, or the file is damaged.
        """
        return list(self._front.larger)

    @property
    def _front(self) -> Front:
        path = self.path / "front.json"
        if not path.is_file():
            raise RunError(f"the search in {self.path} has not finished", remedy="finish-search")
        front = FRONT.read_record(path, Front)
        problem = problem_of_front(front, self.configuration)
        if problem is not None:
            raise RunError(f"{path} is damaged: {problem}", remedy=FRONT.remedy)
        return front

    @property
    def final_path(self) -> Path:
        """The record of the final stage."""
        return self.path / "final.json"

    def write_final_stage(self, stage: FinalStage) -> None:
        """Write the final stage as far as it is: its networks, and the results of its finished rungs."""
        FINAL.write_record(self.final_path, stage)

    def final_stage(self) -> FinalStage | None:
        """Return the final stage as far as it is; None before it begins, and for a search without one.

        Raises:
            RunError: the file is damaged.
        """
        return FINAL.read_record(self.final_path, FinalStage) if self.final_path.is_file() else None

    def final_checkpoint(self, name: str) -> Path:
        """The checkpoint of the network ``name`` of the final stage."""
        return self.path / "checkpoint" / f"{name}.pt"

    def final_result_path(self, name: str, rung: int) -> Path:
        """What the network ``name`` of the final stage got right after a rung, before the rung is finished."""
        return self.path / "checkpoint" / f"{name}.{rung}.json"

    def write_final_result(self, name: str, rung: int, counts: ClassCounts) -> None:
        """Write what the network ``name`` of the final stage got right after a rung."""
        RESULT.write_record(self.final_result_path(name, rung), counts)

    def final_result(self, name: str, rung: int) -> ClassCounts | None:
        """Return what :meth:`write_final_result` wrote; None before.

        Raises:
            RunError: the file is damaged.
        """
        path = self.final_result_path(name, rung)
        return RESULT.read_record(path, ClassCounts) if path.is_file() else None

    def write_trained(self, network: TrainedNetwork) -> None:
        """Write the record of the trained ``network``; its weights have been written before."""
        TRAINED.write_record(self._trained_path(network.name), network)

    def forget_trained(self, name: str) -> None:
        """Remove the record of the training ``name``, whose weights are damaged, before they are made again."""
        self._trained_path(name).unlink(missing_ok=True)
        self.last_weights_path(name).unlink(missing_ok=True)

    def _trained_path(self, name: str) -> Path:
        return self.path / "trained" / f"{name}.json"

    def trained(self) -> list[TrainedNetwork]:
        """Return the trained networks, by name.

        Raises:
            RunError: a record is damaged.
        """
        found = []
        for path in sorted((self.path / "trained").glob("*.json")):
            network = TRAINED.read_record(path, TrainedNetwork)
            if network.name != path.stem:
                raise RunError(f"{path} is damaged: it is of {network.name}", remedy=TRAINED.remedy)
            problem = problem_of_networks((network,), self.configuration)
            if problem is not None:
                raise RunError(f"{path} is damaged: {problem}", remedy=TRAINED.remedy)
            found.append(network)
        return found

    def write_verified(self, rows: Sequence[Verified]) -> None:
        """Write the measured latencies of the exported models."""
        VERIFIED.write_record(self.path / "verified.json", VerifiedModels(tuple(rows)))

    def verified(self) -> list[Verified]:
        """Return the measured latencies of the exported models; empty before they were measured.

        Raises:
            RunError: the file is damaged.
        """
        path = self.path / "verified.json"
        return list(VERIFIED.read_record(path, VerifiedModels).models) if path.is_file() else []

    def write_record(self, name: str, record: object) -> None:
        """Write ``record`` as the file ``name`` of the run: the result of a study of it."""
        STUDY.write_record(self.path / name, record)

    def record(self, name: str, cls: type[Record]) -> Record | None:
        """Return the ``cls`` in the file ``name`` that :meth:`write_record` wrote, None before.

        Raises:
            RunError: the file is damaged.
        """
        path = self.path / name
        return STUDY.read_record(path, cls) if path.is_file() else None


def _has_no_checksums(path: Path) -> bool:
    """Return whether ``path`` is the ``run.json`` of a version before schema 3."""
    try:
        return "schema" in read_json(path, RunError)
    except RunError:
        return False
