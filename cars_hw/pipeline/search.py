"""The first step of a run: from data and latency targets to a front."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
import torch

from cars_hw.callbacks import SearchCallback
from cars_hw.config.codec import structure
from cars_hw.config.data import is_folder
from cars_hw.config.execution import HERE, Execution
from cars_hw.config.files import expanded, require_writable
from cars_hw.config.measurement import MeasurePlan
from cars_hw.config.toml import to_toml, write_settings
from cars_hw.data import DataBundle, load_source
from cars_hw.data.manifest import DataManifest
from cars_hw.data.scan import is_hidden
from cars_hw.errors import DataChangedError, InputError, RunError
from cars_hw.evolution import checkpoint
from cars_hw.evolution.objectives import CostObjective
from cars_hw.evolution.pnsga3 import pareto_front
from cars_hw.evolution.population import Finalist, Member
from cars_hw.evolution.search import Search
from cars_hw.executors.engine import require_engine
from cars_hw.nn.cost import both_costs
from cars_hw.nn.supernet import SuperNet
from cars_hw.pipeline.budget_use import budget_uses
from cars_hw.pipeline.confirm_front import ConfirmedFront, confirm_front
from cars_hw.pipeline.costs import COUNTED, ENERGY, parse_cost
from cars_hw.pipeline.early_kernels import loading_kernels, what_is_waited_for
from cars_hw.pipeline.final_plan import Ended
from cars_hw.pipeline.final_stage import run_final_stage
from cars_hw.pipeline.from_run import Start, open_start
from cars_hw.pipeline.front import longest_trained, with_best_of_stretches
from cars_hw.pipeline.larger_networks import stage_end
from cars_hw.pipeline.memory import enough_memory, require_memory
from cars_hw.pipeline.networks import FrontNetwork
from cars_hw.pipeline.objectives import cost_objectives, find_anchor
from cars_hw.pipeline.plan import SearchPlan, configuration, search_settings
from cars_hw.pipeline.records import RunAbout, StartRecord
from cars_hw.pipeline.run_data import load_frozen, load_new, require_fit, require_splits, splits_of
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.settings import SearchSettings
from cars_hw.pipeline.time_watch import TimeWatch
from cars_hw.progress import Log, Progress, no_log, silent
from cars_hw.progress_line import show
from cars_hw.space.architecture import Architecture
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.training.process_group import SINGLE_PROCESS, ProcessGroup
from cars_hw.training.shared_weights import SuperNetWeights
from cars_hw.training.standalone_weights import StandaloneWeights
from cars_hw.training.untrained_weights import UntrainedWeights
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
        prepared = _prepare(plan, run, manifest, process_group=process_group, progress=progress, log=note)
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
            _require_same_energy(plan, run)
        else:
            RunFolder.create(out, configured, _about(plan))
            _keep_settings(plan, run)
        if prepared is None:
            prepared = _prepare(
                plan, run, _frozen(run) or manifest, process_group=process_group, progress=progress, log=note
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


def require_place(plan: SearchPlan, out: Path, *, resume: bool = False) -> None:
    """Check that the search of ``plan`` can begin in ``out``, or with ``resume`` go on there.

    Raises:
        RunError: ``out`` exists, or is among the images; with ``resume``, it was started with other settings.
        OSError: it cannot be written.
    """
    if resume and (out / "run.json").is_file():
        RunFolder.open(out).require(configuration(plan))
        return
    RunFolder.require_free(out)
    _require_outside(plan, out)
    require_writable(out / "run.json")


def _require_same_energy(plan: SearchPlan, run: RunFolder) -> None:
    """Check that a search with the cost energy goes on with the energy that it began with.

    The energy of a table can be measured again, and the costs of networks that are evaluated do not change with it.

    Raises:
        RunError: the energy of a table was measured again.
        TableError: a table of the run cannot be read.
    """
    if ENERGY not in [parse_cost(text)[0] for text in plan.costs]:
        return
    for index, target in enumerate(plan.targets):
        if not run.table_path(index).is_file():
            continue
        if run.target(index).table.energy != target.table.energy:
            raise RunError(
                f"{run.path} was started with other energies than those of the table of {target.device_name}, "
                f"which were measured again; the table that it began with is {run.table_path(index)}",
                remedy="same-settings",
            )


def _require_outside(plan: SearchPlan, out: Path) -> None:
    """Check that ``out`` is not among the images, where it would be a class in every later step.

    Raises:
        RunError: it is.
    """
    if not is_folder(plan.data.source):
        return
    folder, run = expanded(plan.data.source).resolve(), out.resolve()
    if run.is_relative_to(folder) and not any(is_hidden(part) for part in run.relative_to(folder).parts):
        raise RunError(f"{out} is in {plan.data.source}, where it would be taken for a class", remedy="other-out")


def _search(
    plan: SearchPlan,
    run: RunFolder,
    prepared: _Prepared,
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


def _ended(plan: SearchPlan, run: RunFolder, prepared: _Prepared, finalists: Sequence[Finalist]) -> Ended:
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
    prepared = _prepare(plan, RunFolder(out), None, process_group=process_group)
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


def plan_data(plan: SearchPlan, progress: Progress = silent) -> DataBundle:
    """Load the data of ``plan`` at the network's resolution, and check that it fits the network.

    Raises:
        DatasetError: it cannot be loaded.
        InputError: the channels or classes are not those of the network, and the data is not a proxy.
    """
    data = load_source(plan.data, resolution_of(plan), progress)
    if not plan.proxy:
        require_fit(data, plan.network)
    return data


def run_images(plan: SearchPlan, run: RunFolder, manifest: DataManifest, progress: Progress = silent) -> DataBundle:
    """Load the images of ``manifest``, those of the search of ``run``, to go on with it or to compare with it.

    Raises:
        DataChangedError: they were changed since, or are others; the message says what differs.
        DatasetError: they are gone, or cannot be used.
        RunError: a file of the run is damaged.
    """
    return load_frozen(run, manifest, plan.data, resolution_of(plan), progress).bundle


def resolution_of(plan: SearchPlan) -> tuple[int, int] | None:
    """Return the height and width at which the search of ``plan`` reads images; None is their own.

    If the resolution varies, it is the largest.
    """
    return None if plan.proxy else plan.network.resolution


def supernet_spec(plan: SearchPlan, data: DataBundle) -> NetworkSpec:
    """Return the NetworkSpec of the SuperNet: the preset's width and depth, the data's input and classes.

    Over sizes it has the largest of them.
    """
    preset, spec = plan.preset, plan.network
    if plan.sizes is None:
        spec = spec.with_changes(channels=preset.supernet_channels, layers=preset.supernet_layers)
    if not plan.proxy:
        return spec
    # The ImageNet stem divides the resolution by eight, which is too much for small proxy images.
    return replace(spec, resolution=data.resolution, in_channels=data.channels, classes=data.classes, stem="cifar")


def describe_front(
    plan: SearchPlan,
    front: Sequence[Finalist],
    measured: Mapping[Architecture, Sequence[float | None]] = MappingProxyType({}),
    prefix: str = "net",
) -> list[FrontNetwork]:
    """Return the networks of ``front`` as they are written to the run, named in their order.

    ``measured`` has for an architecture the milliseconds on each target's device, None for a target without one.
    """
    not_measured = (None,) * len(plan.targets)
    best = set(_undominated(front))
    networks = []
    names = [parse_cost(text)[0] for text in plan.costs]
    standalone = bool(plan.standalone_epochs)
    for number, member in enumerate(front, start=1):
        times = measured.get(member.architecture, not_measured)
        counted = member.costs[len(plan.targets) :]
        networks.append(
            FrontNetwork(
                name=f"{prefix}-{number:02d}",
                genotype=member.genotype,
                spec=member.spec,
                accuracy=member.accuracy,
                latency_estimates=tuple(
                    target.estimate(member.architecture, ms) for target, ms in zip(plan.targets, times, strict=True)
                ),
                **both_costs(member.spec, member.genotype),
                objective=plan.preset.evolution.printed_accuracy,
                validation=member.validation,
                trained_epochs=member.trained_epochs,
                # Without a final stage, the search itself chose the front, by what it maximises.
                dominated=bool(member.stretch) and number - 1 not in best,
                costs={name: one for name, one in zip(names, counted, strict=True) if name not in COUNTED},
                classifier=None if standalone or member.trained_epochs else plan.preset.training.classifier,
            )
        )
    return networks


def _undominated(front: Sequence[Finalist]) -> list[int]:
    """Return the positions of those of ``front`` that no other exceeds in accuracy and all costs."""
    if not front:
        return []
    return [int(row) for row in pareto_front(np.array([(-one.accuracy, *one.costs) for one in front]))]


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A search that has its images, and their facts."""

    search: Search
    manifest: DataManifest
    notes: tuple[str, ...]
    supernet: NetworkSpec
    start: StartRecord | None


def _frozen(run: RunFolder) -> DataManifest | None:
    """Return the facts of the images of ``run``; None if it was interrupted before they were written."""
    return run.data if run.data_path.is_file() or run.checkpoint.is_file() else None


def _prepare(
    plan: SearchPlan,
    run: RunFolder,
    manifest: DataManifest | None,
    *,
    process_group: ProcessGroup,
    progress: Progress = silent,
    log: Log = no_log,
) -> _Prepared:
    """Load the images, which are those of ``manifest`` if there is one, and begin the search.

    ``log`` tells later, too, what the training of the shared weights cannot do.
    """
    objectives = cost_objectives(plan)
    # Before the images are loaded, so that an impossible limit is reported at once.
    anchor = find_anchor(plan, objectives)
    device = plan.device if process_group.world == 1 else str(process_group.device)
    with loading_kernels(plan, device) as loading:
        data, manifest = _images(plan, run, manifest, progress)
        waited = loading.wait(progress)
    notes = (*data.notes, *what_is_waited_for(device, loading, waited))
    started = _start(plan, run, process_group)
    if started is None:
        search = _build(plan, data, objectives, anchor, process_group, log=log)
        return _Prepared(search, manifest, notes, supernet_spec(plan, data), None)
    taken: list[StartRecord] = []
    first = started.members(plan, objectives)
    search = _build(
        plan,
        data,
        objectives,
        anchor,
        process_group,
        begin=lambda supernet: taken.append(started.give(plan, supernet, manifest)),
        first=first,
        log=log,
    )
    record = replace(taken[0], population=len(first))
    return _Prepared(search, manifest, (*notes, *record.describe()), supernet_spec(plan, data), record)


def _images(
    plan: SearchPlan, run: RunFolder, manifest: DataManifest | None, progress: Progress
) -> tuple[DataBundle, DataManifest]:
    """Load the images, which are those of ``manifest`` if there is one, and return them with their facts."""
    if manifest is None:
        new = load_new(plan.data, resolution_of(plan), progress)
        if not plan.proxy:
            require_fit(new.bundle, plan.network)
        return new.bundle, new.freeze(splits_of(new.bundle, plan.preset.training, plan.seed))
    data = run_images(plan, run, manifest, progress)
    splits = splits_of(data, plan.preset.training, plan.seed)
    if run.data_path.is_file():
        require_splits(manifest, splits)
    else:
        # The images are those of another run; this one may divide them by another seed.
        manifest = manifest.with_splits(splits)
    return data, manifest


def _start(plan: SearchPlan, run: RunFolder, process_group: ProcessGroup) -> Start | None:
    """Return the weights that the search of ``plan`` starts from; None where they are fresh or in a checkpoint.

    Raises:
        InputError: they are fresh, and there is no warm-up.
        RunError: the weights of an earlier run cannot be used.
    """
    _require_warm_up(plan)
    if plan.from_run is None or not process_group.leads or run.checkpoint.is_file():
        return None
    begun = run.start()
    return open_start(plan.from_run, plan, None if begun is None else begun.digest)


def _require_warm_up(plan: SearchPlan) -> None:
    if plan.from_run is None and plan.preset.training.trains and not plan.preset.evolution.warmup_epochs:
        raise InputError("a search from fresh weights needs a warm-up: 0 epochs are for one from trained weights")


def require_start(plan: SearchPlan) -> None:
    """Check that the search of ``plan`` can start: from fresh weights, or from those of another run.

    Raises:
        InputError: the weights are fresh, and there is no warm-up.
        RunError: the weights of another run cannot be used; the message says why.
        DatasetError: the images cannot be used.
    """
    _require_warm_up(plan)
    if plan.from_run is None:
        return
    started = open_start(plan.from_run, plan)
    new = load_new(plan.data, resolution_of(plan), silent)
    manifest = new.freeze(splits_of(new.bundle, plan.preset.training, plan.seed))
    started.require(supernet_spec(plan, new.bundle), manifest)


def _build(
    plan: SearchPlan,
    data: DataBundle,
    objectives: Sequence[CostObjective],
    anchor: Architecture | None,
    process_group: ProcessGroup,
    *,
    begin: Callable[[SuperNet], None] = lambda _supernet: None,
    first: Sequence[Architecture] = (),
    log: Log = no_log,
) -> Search:
    if plan.standalone_epochs:
        standalone = StandaloneWeights(lambda: supernet_weights_of(plan, data, log=log), plan.standalone_epochs)
        return Search(
            plan.architectures, objectives, standalone, plan.preset.evolution, seed=plan.seed, anchor=anchor
        )
    weights = supernet_weights_of(plan, data, process_group, begin, log)
    if weights.device.type == "cuda":
        require_memory(plan, weights)
    return Search(
        plan.architectures,
        objectives,
        weights if weights.trains else UntrainedWeights(weights),
        plan.preset.evolution,
        seed=plan.seed,
        anchor=anchor,
        first=first,
    )


def supernet_weights_of(
    plan: SearchPlan,
    data: DataBundle,
    process_group: ProcessGroup = SINGLE_PROCESS,
    begin: Callable[[SuperNet], None] = lambda _supernet: None,
    log: Log = no_log,
) -> SuperNetWeights:
    """Return the SuperNet of ``plan``, ready to train and to evaluate; ``begin`` may change its fresh weights.

    For ``log`` see :class:`SuperNetWeights`.
    """
    # torch's layers draw their initial weights from the global generator: fork it, so that its state is unchanged.
    training = plan.preset.training
    if plan.standalone_epochs:
        # An architecture that is trained standalone shares its weights with nothing.
        training = replace(training, size_sampling="drawn", share="edges", average=0.0, classifier="shared")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        supernet = SuperNet(supernet_spec(plan, data), training.share)
    begin(supernet)
    evolution = plan.preset.evolution
    return SuperNetWeights(
        supernet,
        data,
        training,
        epochs=plan.standalone_epochs
        or evolution.warmup_epochs + evolution.generations * evolution.epochs_per_generation,
        seed=plan.seed,
        device=plan.device if process_group.world == 1 else process_group.device,
        process_group=process_group,
        replay=plan.replay,
        over_sizes=plan.sizes is not None,
        over_resolutions=plan.architectures.varies_resolution,
        smallest=plan.architectures.smallest,
        log=log,
    )


def _about(plan: SearchPlan) -> RunAbout:
    packages = ("cars-hw", "torch", "numpy", "pymoo")
    return RunAbout(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={"python": platform.python_version(), **versions_of(packages)},
        torch_threads=torch.get_num_threads(),
        time=plan.time,
        chosen=plan.chosen,
    )
