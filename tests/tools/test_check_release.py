"""The check of a release: the versions of its files agree, and archives hold what they should."""

from __future__ import annotations

import importlib.util
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
FILES = {
    "pyproject.toml": '[project]\nversion = "{}"\n',
    "CITATION.cff": "cff-version: 1.2.0\nversion: {}\n",
    "CHANGELOG.md": "# Changelog\n\n## [Unreleased]\n\n## [{}] - 2026-11-28\n\n## [0.0.1] - 2025-01-01\n",
}


@pytest.fixture(scope="module")
def tool() -> Iterator[ModuleType]:
    """The tool that checks a release."""
    path = ROOT / "tools" / "check_release.py"
    spec = importlib.util.spec_from_file_location("check_release", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(path.parent))
        spec.loader.exec_module(module)
        yield module


def test_the_versions_of_the_repository_agree(tool: ModuleType) -> None:
    assert tool.one_version(ROOT)


@pytest.mark.parametrize("other", FILES)
def test_another_version_in_one_file_is_named(tool: ModuleType, tmp_path: Path, other: str) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text.format("1.2.3"))
    assert tool.one_version(tmp_path) == "1.2.3"
    (tmp_path / other).write_text(FILES[other].format("1.2.4"))
    with pytest.raises(SystemExit, match=rf"versions differ: .*'{other}': '1\.2\.4'"):
        tool.one_version(tmp_path)


def test_what_an_archive_should_not_hold_is_named(tool: ModuleType, tmp_path: Path) -> None:
    wheel, sdist = tmp_path / "a-1-py3-none-any.whl", tmp_path / "a-1.tar.gz"
    for tops, names in ((["cars_hw"], ["cars_hw"]), (["cars_hw", "cli"], ["cars_hw", "runs"])):
        with zipfile.ZipFile(wheel, "w") as content:
            for top in (*tops, "a-1.dist-info"):
                content.writestr(f"{top}/x", "")
        with tarfile.open(sdist, "w:gz") as packed:
            for top in names:
                packed.add(ROOT / "LICENSE", f"a-1/{top}/x")
        if tops == names:
            tool.look_into(wheel, sdist)
            continue
        with pytest.raises(SystemExit, match=r"has \['cars_hw', 'cli'\] at its top"):
            tool.look_into(wheel, sdist)
