"""Whether a search can begin in a folder, or go on there."""

from __future__ import annotations

from pathlib import Path

from cars_hw.config.data import is_folder
from cars_hw.config.files import expanded, require_writable
from cars_hw.data.scan import is_hidden
from cars_hw.errors import RunError
from cars_hw.pipeline.costs import ENERGY, parse_cost
from cars_hw.pipeline.plan import SearchPlan, configuration
from cars_hw.pipeline.run_folder import RunFolder


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


def require_same_energy(plan: SearchPlan, run: RunFolder) -> None:
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
