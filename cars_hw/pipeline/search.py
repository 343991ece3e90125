"""The first step of a run: from data and latency targets to a front."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import torch

from cars_hw.callbacks import SearchCallback
from cars_hw.config.codec import structure
from cars_hw.config.execution import HERE, Execution
from cars_hw.config.measurement import MeasurePlan
from cars_hw.config.toml import to_toml, write_settings
from cars_hw.data.manifest import DataManifest
from cars_hw.errors import DataChangedError
from cars_hw.evolution import checkpoint
from cars_hw.evolution.population import Finalist, Member
from cars_hw.executors.engine import require_engine
from cars_hw.pipeline.budget_use import budget_uses
from cars_hw.pipeline.confirm_front import ConfirmedFront, confirm_front
from cars_hw.pipeline.final_plan import Ended
from cars_hw.pipeline.final_stage import run_final_stage
from cars_hw.pipeline.front import describe_front, longest_trained, with_best_of_stretches
from cars_hw.pipeline.larger_networks import stage_end
from cars_hw.pipeline.memory import enough_memory
from cars_hw.pipeline.plan import SearchPlan, configuration, search_settings
from cars_hw.pipeline.prepare_search import Prepared, frozen_facts, prepare_search
from cars_hw.pipeline.records import RunAbout
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.search_images import resolution_of
from cars_hw.pipeline.search_place import require_place, require_same_energy
from cars_hw.pipeline.settings import SearchSettings
from cars_hw.pipeline.time_watch import TimeWatch
from cars_hw.progress import Log, Progress
from cars_hw.progress_line import show
from cars_hw.training.process_group import SINGLE_PROCESS, ProcessGroup
from cars_hw.version import own_version, versions_of

FINISHED: Final = b"finished"
"""The message that the leading process sends instead of a checkpoint if the search has ended."""


def run_search(
    plan: SearchPlan,
    out: Path,
    *,
    resume: bool = False,
    measure_plan: MeasurePlan | None = None,
    progress: Progress = show,
    log: Log = show.log,
    callbacks: Sequence[SearchCallback] = (),
    process_group: ProcessGroup = SINGLE_PROCESS,
    manifest: DataManifest | None = None,
    jobs: int | None = None,
    execution: Execution = HERE,
) -> RunFolder:
    """Search by ``plan`` in the run folder ``out`` and return it with its front written.

    The facts of the images are frozen in the run before the search begins. With ``manifest``, the images must be
    those of another run, whose facts they are.

    If the plan has a final stage, the leading process trains the best architectures from fresh weights, ``jobs`` of
    them side by side (the default is one for each core of a CPU, and one on a GPU), or hands them to a cluster
    (``execution``). These trainings choose the front; see :func:`cars_hw.pipeline.final_stage.run_final_stage`.

    At the end the front is measured by ``measure_plan`` on the devices of the targets that have one, and the next
    best networks replace those that exceed a limit there; see
    :func:`cars_hw.pipeline.confirm_front.confirm_front`, which uses ``log``.

    With ``plan.from_run`` the search starts from the shared weights of that run, and its population from the last
    architectures of that run that keep to the limits.

    With ``resume`` the search resumes after its last finished unit of work and ends with the same front as without
    an interruption; its images must be the same. A finished search is left as it is. The leading process calls
    ``callbacks``. In a ``process_group`` of several, only the leading process writes and measures; the others
    return before that.

    Raises:
        BudgetError: no architecture keeps to the limits, by prediction or by measurement; it carries the smallest
            latency.
        RunError: ``out`` exists, is among the images, was started with other settings, has a damaged file, or
            another process writes to it; or the weights of ``plan.from_run`` cannot be used.
        DatasetError: the data cannot be used, or does not fit the network.
        DataChangedError: the images are not those of ``manifest``, or of the search that is resumed.
    """
    require_engine(execution)
    configured = configuration(plan)
    if not process_group.leads:
        return _follow(plan, out, process_group)

    def note(line: str) -> None:
        for callback in callbacks:
            callback.on_note(line)

    resumed = resume and (out / "run.json").is_file()
    if resumed:
        run = RunFolder.open(out)
        prepared = None
    else:
        run = RunFolder(out)
        require_place(plan, out)
        prepared = prepare_search(plan, run, manifest, process_group=process_group, progress=progress, log=note)
        # Before the folder is made, so that an error leaves nothing behind.
        to_toml(_settings(plan, run))
        out.mkdir(parents=True, exist_ok=True)
    with run.lock():
        if resumed:
            run.require(configured)
            if (out / "front.json").is_file():
                run.front()
                process_group.broadcast(FINISHED)
                _end(run, callbacks)
                return run
            require_same_energy(plan, run)
        else:
            RunFolder.create(out, configured, _about(plan))
            _keep_settings(plan, run)
        if prepared is None:
            prepared = prepare_search(
                plan, run, frozen_facts(run) or manifest, process_group=process_group, progress=progress, log=note
            )
        if not run.data_path.is_file():
            run.write_data(prepared.manifest)
        if prepared.start is not None:
            run.write_start(prepared.start)
        _search(
            plan,
            run,
            prepared,
            resumed=resumed,
            measure_plan=measure_plan,
            progress=progress,
            log=log,
            callbacks=callbacks,
            process_group=process_group,
            jobs=jobs,
            execution=execution,
        )
    return run


def _search(
    plan: SearchPlan,
    run: RunFolder,
    prepared: Prepared,
    *,
    resumed: bool,
    measure_plan: MeasurePlan | None,
    progress: Progress,
    log: Log,
    callbacks: Sequence[SearchCallback],
    process_group: ProcessGroup,
    jobs: int | None,
    execution: Execution,
) -> None:
    """Run the search from its checkpoint if it is ``resumed``, and write its front to ``run``."""
    search = prepared.search
    for note in prepared.notes:
        for callback in callbacks:
            callback.on_note(note)
    for index, target in enumerate(plan.targets):
        target.table.write(run.table_path(index))
    known = checkpoint.content(run.checkpoint) if resumed and run.checkpoint.is_file() else b""
    if process_group.world > 1 and prepared.start is not None:
        # The others begin with the weights that this process has read.
        known = checkpoint.packed(search)
    if process_group.world > 1:
        # The other processes may run on machines without access to this folder, and with images of their own.
        process_group.broadcast(prepared.manifest.digest.encode())
        process_group.broadcast(known)
    if known:
        checkpoint.restore(search, known)
        run.write_history(search.history)
        if search.history:
            for callback in callbacks:
                callback.on_resume(search.history)

    def save() -> None:
        checkpoint.save(search, run.checkpoint)
        run.write_history(search.history)
        if search.history and search.history[-1]["generation"] == search.generation:
            for callback in callbacks:
                callback.on_generation(search.history[-1])

    def tell(line: str) -> None:
        for callback in callbacks:
            callback.on_final_stage(line)

    if plan.time is not None:

        def tell_time(line: str) -> None:
            for callback in callbacks:
                callback.on_time(line)

        progress = TimeWatch(
            plan.time,
            plan.preset.evolution,
            progress,
            tell_time,
            trains=search.weights.trains,
            warmed_up=search.warmed_up,
            generations=search.generation,
        )
    with enough_memory(plan):
        finalists = search.run(save, progress)
    if plan.has_final_stage:
        finalists = run_final_stage(
            _ended(plan, run, prepared, finalists),
            device=plan.device if process_group.world == 1 else str(process_group.device),
            jobs=jobs,
            execution=execution,
            progress=progress,
            tell=tell,
        )

    def front_of(members: Sequence[Finalist]) -> list[Finalist]:
        # Without a final stage, no member has epochs and a stretch of its own.
        trained = longest_trained(members)
        return with_best_of_stretches(search.front(trained), trained)

    if any(target.device is not None for target in plan.targets):
        confirmed = confirm_front(
            finalists,
            front_of,
            plan.targets,
            plan=measure_plan,
            progress=progress,
            log=log,
        )
    else:
        confirmed = ConfirmedFront(front_of(finalists), [], {})
    front = describe_front(plan, confirmed.front, confirmed.measured)
    rejected = describe_front(plan, confirmed.rejected, confirmed.measured, "rejected")
    end = stage_end(run.configuration, run.final_stage(), [one.architecture for one in rejected])
    best = max(front, key=lambda one: one.accuracy)
    uses = budget_uses(best, plan.targets, plan.architectures, end)
    run.write_front(front, rejected, [use.larger for use in uses if use.larger is not None])
    _end(run, callbacks)


def _ended(plan: SearchPlan, run: RunFolder, prepared: Prepared, finalists: Sequence[Finalist]) -> Ended:
    """Return what the final stage of a search begins with."""
    search = prepared.search
    population = [
        member.architecture
        for record in search.history
        for member in structure(record["population"], tuple[Member, ...])
    ]
    return Ended(plan, run, prepared.supernet, resolution_of(plan), search.objectives, finalists, population)


def _settings(plan: SearchPlan, run: RunFolder) -> SearchSettings:
    """Return the settings of ``plan``, with the run's own tables."""
    return search_settings(
        plan, [run.table_path(index).relative_to(run.path) for index in range(len(plan.targets))]
    )


def _keep_settings(plan: SearchPlan, run: RunFolder) -> None:
    """Write down what repeats the search: its settings and the command."""
    settings = _settings(plan, run)
    comment = f"Settings of this search by cars-hw {own_version()}. To repeat it:\n"
    write_settings(run.config_file, settings, f"{comment}cars-hw search --config config.toml --out ANOTHER")
    run.add_step("search", settings)


def _end(run: RunFolder, callbacks: Sequence[SearchCallback]) -> None:
    history = run.history()
    for callback in callbacks:
        callback.on_end(history)


def _follow(plan: SearchPlan, out: Path, process_group: ProcessGroup) -> RunFolder:
    """Take part in the leading process's search until it has its finalists."""
    prepared = prepare_search(plan, RunFolder(out), None, process_group=process_group)
    search = prepared.search
    first = process_group.broadcast(None)
    if first == FINISHED:
        return RunFolder(out)
    if first.decode() != prepared.manifest.digest:
        raise DataChangedError(
            f"process {process_group.rank} has other images in {plan.data.source} than the first process"
        )
    begin = process_group.broadcast(None)
    if begin:
        checkpoint.restore(search, begin)
    search.run()
    return RunFolder(out)


def _about(plan: SearchPlan) -> RunAbout:
    packages = ("cars-hw", "torch", "numpy", "pymoo")
    return RunAbout(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={"python": platform.python_version(), **versions_of(packages)},
        torch_threads=torch.get_num_threads(),
        time=plan.time,
        chosen=plan.chosen,
    )
