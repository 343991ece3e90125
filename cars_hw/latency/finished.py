"""A profile that has ended already: a resumed one takes the table that is there.

Of several devices that are profiled side by side, one can end before another fails. And a profile can be killed
after its table was written, before the samples beside it were removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cars_hw.config.codec import unstructure
from cars_hw.errors import CarsHwError, TableError
from cars_hw.latency.table import TABLE, LatencyTable
from cars_hw.measurement.journal import partial_path, stored_beginning
from cars_hw.space.space_of import space_of


def finished_or_free(
    out: Path | None, *, resume: bool, overwrite: bool, is_told: bool = True
) -> LatencyTable | None:
    """Return the table at ``out`` if it is that of the profile to be resumed, None if a profile may write there.

    It is, if the samples beside it are those of the same profile. Without such samples it is, too, unless it is to
    be replaced; and unless a table does not tell what was asked for (not ``is_told``).

    Raises:
        TableError: something is in the way, or the samples are damaged.
        InputError: the file at ``out`` is no table.
    """
    if out is None:
        return None
    table = _read(out) if resume and out.exists() else None
    if table is not None and partial_path(out).exists():
        finished = table if stored_beginning(out).get("time") == table.created else None
    else:
        finished = None if overwrite or not is_told else table
    if out.exists() and not overwrite and finished is None:
        raise TableError(f"{out} exists; write to another file, or delete it first")
    TABLE.require_replaceable(out)
    return finished


def _read(out: Path) -> LatencyTable | None:
    """Return the table at ``out``; None if it cannot be read. Whether it may be replaced is another question."""
    try:
        return LatencyTable.read(out)
    except CarsHwError:
        return None


def require_same(out: Path, table: LatencyTable, identity: Mapping[str, Any]) -> None:
    """Check that the finished ``table`` at ``out`` is what a profile with ``identity`` would have measured.

    Raises:
        TableError: it has other settings.
    """
    if names := _differing(table, identity):
        raise TableError(
            f"{out} exists, with other settings ({', '.join(names)}); write to another file, or delete it first"
        )


def _differing(table: LatencyTable, identity: Mapping[str, Any]) -> list[str]:
    """Return which settings of a profile, by its ``identity``, are not those of the finished ``table``."""
    conditions = table.conditions
    found = {
        "device": conditions.get("device_identity", table.device),
        "precision": table.precision,
        "network": unstructure(table.spec),
        "sizes": None if table.sizes is None else unstructure(table.sizes),
        "calibration": len(table.calibration),
        "plan": {name: value for name, value in table.plan.items() if name != "patience_seconds"},
        "operations": list(table.operations or space_of(table.spec).operations),
        "sustained": _load(table, identity.get("sustained")),
        **{name: conditions.get(name) for name in ("processor", "cores", "platform", "runtime", "threads")},
    }
    return [name for name, value in found.items() if identity.get(name) != value]


def _load(table: LatencyTable, asked: Any) -> Any:  # noqa: ANN401 -- JSON's types
    """Return the settings of the load of ``table``; if it does not tell them, those that are ``asked`` for."""
    if table.sustained is None:
        return None
    return (asked or {}) if table.sustained.load is None else unstructure(table.sustained.load)
