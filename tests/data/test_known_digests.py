"""Digests that are kept for the next command: used for what is unchanged, and never for what may have changed."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cars_hw.data import fingerprint, image_cache, known_digests
from cars_hw.data.fingerprint import DIGITS, files_of
from cars_hw.data.image_cache import cache_folder
from cars_hw.data.known_digests import FORMAT, SETTLED_SECONDS, SUFFIX, Facts, Known
from cars_hw.data.scan import survey_folder

LATER = 10 * SETTLED_SECONDS
"""After so many seconds, files that were just written are settled."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes with four files each; their contents are no images, which nothing here opens."""
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(4):
            (tmp_path / "pets" / name / f"{number}.png").write_bytes(f"{name} {number}".encode())
    return tmp_path / "pets"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "kept" / "images"


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that passes before a command, in seconds; small folders are worth keeping."""
    monkeypatch.setattr(image_cache, "LEAST_FILES", 1)
    passed, real = [LATER], known_digests.now
    monkeypatch.setattr(fingerprint, "now", lambda: real() + passed[0])
    return passed


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are hashed."""
    files: list[Path] = []
    hashed = fingerprint._hashed

    def watch(file: Path) -> Known:
        files.append(file)
        return hashed(file)

    monkeypatch.setattr(fingerprint, "_hashed", watch)
    return files


def digests(folder: Path, cache: Path | None) -> dict[str, str]:
    found = files_of(survey_folder(folder), cache=cache)
    return {
        path: digest for classes in found.values() for files in classes.values() for path, digest in files.items()
    }


def expected(folder: Path) -> dict[str, str]:
    """Return what each file holds now, hashed without what is tested."""
    files = sorted(folder.rglob("*.png"))
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()[:DIGITS] for file in files}


def test_the_second_command_hashes_nothing_and_the_folder_stays_as_it_is(
    folder: Path, cache: Path, opened: list[Path]
) -> None:
    before = sorted(folder.rglob("*"))
    assert digests(folder, cache) == expected(folder)
    assert len(opened) == 8
    (kept,) = cache.iterdir()
    assert kept.name.endswith(SUFFIX)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (cache, kept)] == [0o700, 0o600]
    opened.clear()
    content = kept.read_bytes()
    assert digests(folder, cache) == expected(folder)
    assert opened == []
    assert kept.read_bytes() == content
    assert sorted(folder.rglob("*")) == before
    # Without a folder for what is kept, as with ``off``, all are hashed anew.
    assert cache_folder("off") is None
    assert digests(folder, None) == expected(folder)
    assert len(opened) == 8


def rewrite(file: Path, content: bytes) -> None:
    file.write_bytes(content)


def replace_it(file: Path, content: bytes) -> None:
    (file.parent / "new").write_bytes(content)
    (file.parent / "new").replace(file)


def link(file: Path, content: bytes) -> None:
    other = file.parents[2] / "elsewhere"
    other.write_bytes(content)
    file.unlink()
    file.symlink_to(other)


@pytest.mark.parametrize("change", [rewrite, replace_it, link])
@pytest.mark.parametrize("length", [5, 6])
def test_a_change_that_leaves_size_and_time_of_modification_is_noticed(
    folder: Path, cache: Path, opened: list[Path], change: object, length: int
) -> None:
    digests(folder, cache)
    opened.clear()
    file = folder / "cat" / "1.png"
    before = file.stat()
    change(file, b"x" * length)  # type: ignore[operator]
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    assert digests(folder, cache) == expected(folder)
    assert opened == [file]
    opened.clear()
    # What was hashed now is known from now on, and the others still are.
    assert digests(folder, cache) == expected(folder)
    assert opened == []


def test_names_that_move_are_hashed_again(folder: Path, cache: Path, opened: list[Path]) -> None:
    digests(folder, cache)
    opened.clear()
    (folder / "cat" / "0.png").rename(folder / "cat" / "swap")
    (folder / "cat" / "1.png").rename(folder / "cat" / "0.png")
    (folder / "cat" / "swap").rename(folder / "cat" / "1.png")
    (folder / "dog" / "0.png").unlink()
    (folder / "dog" / "9.png").write_bytes(b"new")
    assert digests(folder, cache) == expected(folder)
    assert sorted(file.name for file in opened) == ["0.png", "1.png", "9.png"]


def test_a_file_that_was_changed_a_moment_ago_is_hashed_again(
    folder: Path, cache: Path, opened: list[Path], clock: list[float]
) -> None:
    clock[0] = 0.0
    for _ in range(2):
        opened.clear()
        assert digests(folder, cache) == expected(folder)
        assert len(opened) == 8
    assert not cache.exists()
    clock[0] = LATER
    digests(folder, cache)
    # One of them is changed again: it alone is young.
    clock[0] = 0.0
    os.utime(folder / "cat" / "0.png")
    for _ in range(2):
        opened.clear()
        digests(folder, cache)
        assert opened == [folder / "cat" / "0.png"]


def test_a_file_that_changes_while_it_is_hashed_is_hashed_again(
    folder: Path, cache: Path, opened: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = folder / "cat" / "2.png"
    sha256 = hashlib.sha256

    class Slow:
        def __init__(self, content: bytes = b"") -> None:
            self._sum = sha256(content)

        def update(self, block: bytes) -> None:
            self._sum.update(block)
            if block == b"cat 2":
                file.write_bytes(b"cat 3")

        def hexdigest(self) -> str:
            return self._sum.hexdigest()

    # The clock stands where all files are settled, also the one that changes.
    with monkeypatch.context() as patched:
        patched.setattr(fingerprint.hashlib, "sha256", Slow)
        digests(folder, cache)
    opened.clear()
    assert digests(folder, cache) == expected(folder)
    assert opened == [file]


@given(
    tick=st.sampled_from([1, 1_000_000, 10_000_000, 1_000_000_000, 2_000_000_000]),
    changed=st.integers(0, 10**19),
    hashed_after=st.integers(0, 20 * 10**9),
    again_after=st.integers(0, 20 * 10**9),
)
def test_whatever_the_tick_of_a_clock_a_later_change_has_another_time(
    tick: int, changed: int, hashed_after: int, again_after: int
) -> None:
    def written(moment: int) -> Facts:
        return Facts(3, moment // tick * tick, moment // tick * tick, 1)

    opened = changed + hashed_after
    if written(changed).settled(opened / 1e9):
        assert written(opened + again_after) != written(changed)
    # It is not for nothing: what is old is kept.
    assert written(changed).settled((changed + 60 * 10**9) / 1e9)


@pytest.mark.parametrize("damage", ["cut", "changed", "deep", "other"])
def test_a_damaged_file_is_as_none(folder: Path, cache: Path, opened: list[Path], damage: str) -> None:
    digests(folder, cache)
    (kept,) = cache.iterdir()
    content = kept.read_bytes()
    if damage == "cut":
        kept.write_bytes(content[:-9])
    elif damage == "changed":
        known = expected(folder)["cat/0.png"].encode()
        kept.write_bytes(content.replace(known, known[::-1]))
    elif damage == "deep":
        # With the checksum of what it holds.
        FORMAT.write(kept, b"[" * 100_000)
    else:
        # That of another folder under this name.
        FORMAT.write(kept, FORMAT.read(kept).replace(str(folder).encode().hex().encode(), b"00"))
    opened.clear()
    assert digests(folder, cache) == expected(folder)
    assert len(opened) == 8
    assert kept.read_bytes() == content


def test_few_small_files_are_not_kept(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_cache, "LEAST_FILES", 9)
    digests(folder, cache)
    assert not cache.exists()
    monkeypatch.setattr(image_cache, "LEAST_BYTES", 8 * 5)
    digests(folder, cache)
    assert cache.exists()


def test_a_place_that_cannot_be_written_is_no_error(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert digests(folder, tmp_path / "file" / "images") == expected(folder)


def test_a_link_to_nowhere_is_never_known(folder: Path, cache: Path, opened: list[Path]) -> None:
    broken = folder / "cat" / "9.png"
    broken.symlink_to(folder / "nothing")
    for _ in range(2):
        opened.clear()
        assert digests(folder, cache)["cat/9.png"] == "0" * DIGITS
    assert opened == [broken]
