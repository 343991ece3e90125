"""The share of the processors that a container may use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

_MOUNTS: Final = Path("sys/fs/cgroup")


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Return how many processors' time this process may use, the least of its groups; None if nothing limits it.

    The kernel stops a process that has used its share until the next period begins (mostly 0.1 s). The limits of
    the groups that a group is in hold for it, too. Both versions of control groups are read.
    ``root`` is the root of the file system. See cgroup-v2.rst (``cpu.max``) and sched-bwc.rst
    (``cpu.cfs_quota_us``) of Linux.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    quotas = []
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if number == "0" and not controllers:
            for mount in (_MOUNTS, _MOUNTS / "unified"):
                quotas += [_second_version(folder) for folder in _upwards(root / mount, group)]
        elif "cpu" in controllers.split(","):
            for mount in (_MOUNTS / controllers, _MOUNTS / "cpu"):
                quotas += [_first_version(folder) for folder in _upwards(root / mount, group)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _upwards(mount: Path, group: str) -> Iterator[Path]:
    """Yield the folder of ``group`` and of every group that it is in.

    Inside a container the path can be that of the host: then only some of the folders exist, the mount always does.
    """
    parts = [part for part in PurePosixPath(group).parts if part not in ("/", "..")]
    for length in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:length])


def _second_version(folder: Path) -> float | None:
    return _ratio(_words(folder / "cpu.max"))


def _first_version(folder: Path) -> float | None:
    return _ratio(_words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us"))


def _ratio(words: list[str]) -> float | None:
    """Return quota by period; the quota ``max`` or -1 is no limit."""
    if len(words) != 2 or not all(word.isdecimal() for word in words) or int(words[1]) == 0:
        return None
    return int(words[0]) / int(words[1])


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split()
    except OSError:
        return []
