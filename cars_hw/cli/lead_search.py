"""The search of the leading process: its progress, its trackers, and the devices that measure its front."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cars_hw.callbacks import SearchCallback
from cars_hw.cli.live_view import search_view
from cars_hw.cli.options import count_warnings_of
from cars_hw.cli.search_status import SearchStatus
from cars_hw.cli.verbosity import note, warn_of_quality
from cars_hw.config.execution import Execution

if TYPE_CHECKING:
    from cars_hw.pipeline.plan import SearchPlan
    from cars_hw.pipeline.run_folder import RunFolder
    from cars_hw.progress import Log
    from cars_hw.training.process_group import ProcessGroup


def lead_search(
    plan: SearchPlan,
    out: Path,
    *,
    measure: bool,
    jobs: int | None,
    execution: Execution,
    resume: bool,
    process_group: ProcessGroup,
    tensorboard: bool = False,
    track: tuple[str, ...] = (),
) -> RunFolder:
    """Search and show the progress; with ``measure`` the front is measured on the devices that are available."""
    from cars_hw.pipeline.objectives import cost_objectives
    from cars_hw.pipeline.search import run_search

    objectives = cost_objectives(plan)
    title = f"{Path(plan.data.source).name} to {out}"
    problems: list[str] = []
    preset = plan.preset
    status = SearchStatus(title, objectives, preset.evolution, time.monotonic(), preset.training.classifier)
    try:
        with (
            search_view(status, standalone=process_group.world == 1) as view,
            closing(_follower(plan, out, tensorboard=tensorboard, track=track)) as follower,
        ):
            if preset.training.trains and preset.training.architectures < process_group.world:
                view.log(
                    f"{process_group.world} processes share the evaluation of architectures, but only "
                    f"{preset.training.architectures} share the training: "
                    f"give --architectures {process_group.world} or more"
                )
            if measure:
                plan = _with_devices(plan, view.log)
            return run_search(
                plan,
                out,
                resume=resume,
                progress=view.update,
                log=problems.append,
                callbacks=[view, follower],
                process_group=process_group,
                jobs=jobs,
                execution=execution,
            )
    except KeyboardInterrupt:
        note("The same command with --resume resumes the search.")
        raise
    finally:
        # After the view has ended: a warning must not be drawn into it.
        for problem in problems:
            warn_of_quality(f"{problem}. Stop other processes, and search again.")
        for target in plan.targets:
            if target.device is not None:
                count_warnings_of(target.device)


def _follower(plan: SearchPlan, out: Path, *, tensorboard: bool, track: tuple[str, ...]) -> SearchCallback:
    """Return the callback that keeps figures of the search; one that keeps none if none are wanted."""
    from cars_hw.pipeline.objectives import cost_objectives
    from cars_hw.pipeline.tensorboard import FOLDER, SearchEvents
    from cars_hw.tracking.follow import tracked_search

    objectives = cost_objectives(plan)
    if track:
        names = tuple(dict.fromkeys((*track, *(["tensorboard"] if tensorboard else []))))
        return tracked_search(out, names, objectives, {"data": plan.data.source, "seed": plan.seed})
    return SearchEvents(out / FOLDER, objectives) if tensorboard else SearchCallback()


def _with_devices(plan: SearchPlan, log: Log) -> SearchPlan:
    """Return ``plan`` with the devices that are available; ``log`` gets the reason for each that is not."""
    targets = []
    for target in plan.targets:
        device, reason = target.available_device()
        if device is None:
            log(f"the front will not be measured on {target.device_name}: {reason}")
        targets.append(replace(target, device=device))
    return replace(plan, targets=tuple(targets))
