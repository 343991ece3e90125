"""The preparation of a search: its images, the weights that it starts from, and the SuperNet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cars_hw.data import DataBundle
from cars_hw.data.manifest import DataManifest
from cars_hw.errors import InputError
from cars_hw.evolution.objectives import CostObjective
from cars_hw.evolution.search import Search
from cars_hw.nn.supernet import SuperNet
from cars_hw.pipeline.early_kernels import loading_kernels, what_is_waited_for
from cars_hw.pipeline.from_run import Start, open_start
from cars_hw.pipeline.memory import require_memory
from cars_hw.pipeline.objectives import cost_objectives, find_anchor
from cars_hw.pipeline.plan import SearchPlan
from cars_hw.pipeline.records import StartRecord
from cars_hw.pipeline.run_data import load_new, splits_of
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.search_images import images_and_facts, resolution_of
from cars_hw.pipeline.supernet import supernet_spec, supernet_weights_of
from cars_hw.progress import Log, Progress, no_log, once, silent
from cars_hw.space.architecture import Architecture
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.training.process_group import ProcessGroup
from cars_hw.training.standalone_weights import StandaloneWeights
from cars_hw.training.untrained_weights import UntrainedWeights


@dataclass(frozen=True, eq=False)
class Prepared:
    """A search that has its images, and their facts."""

    search: Search
    manifest: DataManifest
    notes: tuple[str, ...]
    supernet: NetworkSpec
    start: StartRecord | None


def frozen_facts(run: RunFolder) -> DataManifest | None:
    """Return the facts of the images of ``run``; None if it was interrupted before they were written."""
    return run.data if run.data_path.is_file() or run.checkpoint.is_file() else None


def prepare_search(
    plan: SearchPlan,
    run: RunFolder,
    manifest: DataManifest | None,
    *,
    process_group: ProcessGroup,
    progress: Progress = silent,
    log: Log = no_log,
) -> Prepared:
    """Load the images, which are those of ``manifest`` if there is one, and begin the search.

    ``log`` tells later, too, what the training of the shared weights cannot do.
    """
    objectives = cost_objectives(plan)
    # Before the images are loaded, so that an impossible limit is reported at once.
    anchor = find_anchor(plan, objectives)
    device = plan.device if process_group.world == 1 else str(process_group.device)
    with loading_kernels(plan, device) as loading:
        data, manifest = images_and_facts(plan, run, manifest, progress)
        waited = loading.wait(progress)
    notes = (*data.notes, *what_is_waited_for(device, loading, waited))
    started = _start(plan, run, process_group)
    if started is None:
        search = _build(plan, data, objectives, anchor, process_group, log=log)
        return Prepared(search, manifest, notes, supernet_spec(plan, data), None)
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
    return Prepared(search, manifest, (*notes, *record.describe()), supernet_spec(plan, data), record)


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
        # What the weights of one architecture cannot do, the others cannot either.
        said = once(log)
        standalone = StandaloneWeights(lambda: supernet_weights_of(plan, data, log=said), plan.standalone_epochs)
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
