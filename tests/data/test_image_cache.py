"""The kept images of a folder: used at the next start, refused when damaged, made again when anything changed."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from cars_hw.config.data import DataSource
from cars_hw.data import DataBundle, image_cache, load_data, reading
from cars_hw.data.image_cache import VARIABLE, cache_folder
from cars_hw.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes with six images each, which are called settled whatever their age."""
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(6):
            pixels = random.integers(0, 256, (6, 5, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pets" / name / f"{number}.png")
    return tmp_path / "pets"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of kept images, in which small sets and young images are kept too."""
    monkeypatch.setattr(image_cache, "LEAST_FILES", 1)
    monkeypatch.setattr(image_cache, "SETTLED_SECONDS", -3600.0)
    return tmp_path / "kept" / "images"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The image files that are decoded."""
    files: list[Path] = []
    decode = reading.upright

    def watch(file: Path) -> Image.Image:
        files.append(file)
        return decode(file)

    monkeypatch.setattr(reading, "upright", watch)
    return files


class Heard(list[str]):
    def told(self, words: str) -> bool:
        return any(words in line for line in self)


def load(folder: Path, cache: Path | str, heard: Heard | None = None, **changes: object) -> DataBundle:
    settings: dict[str, object] = {"resolution": (4, 4), "image_cache": str(cache), **changes}
    bundle = load_data(str(folder), **settings)  # type: ignore[arg-type]
    if heard is not None:
        heard += bundle.notes
    return bundle


def same(first: DataBundle, second: DataBundle) -> bool:
    return all(
        torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)
        for one, other in ((first.train, second.train), (first.test, second.test))
    )


def test_the_second_start_decodes_nothing_and_has_the_same_images(
    folder: Path, cache: Path, opened: list[Path]
) -> None:
    heard = Heard()
    first = load(folder, cache, heard)
    assert len(opened) == 12
    (kept,) = cache.iterdir()
    assert heard == [f"the read images are kept in {kept} for the next start (1 kB)"]
    opened.clear()
    again = Heard()
    assert same(load(folder, cache, again), first)
    assert (opened, again) == ([], [])
    assert same(load(folder, "off"), first)
    # It is a copy of pictures that may be private.
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700


def rewritten(path: Path, pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    """Replace the image in ``path`` by one of the same size in bytes, with the same time of modification."""
    before = path.stat()
    Image.fromarray(pixels).save(path.with_suffix(".bmp"))
    path.with_suffix(".bmp").replace(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.skipif(os.name != "posix", reason="other systems have other permissions")
def test_only_the_owner_can_read_a_copy(folder: Path, cache: Path) -> None:
    cache.mkdir(parents=True)
    cache.chmod(0o755)
    load(folder, cache)
    (kept,) = cache.iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600


def test_an_image_that_is_replaced_with_its_size_and_its_time_is_noticed(
    folder: Path, cache: Path, opened: list[Path]
) -> None:
    path = folder / "cat" / "3.png"
    rewritten(path, np.full((6, 5, 3), 10, np.uint8))
    size = path.stat().st_size
    load(folder, cache)
    time.sleep(0.02)
    rewritten(path, np.full((6, 5, 3), 250, np.uint8))
    assert path.stat().st_size == size
    opened.clear()
    bundle = load(folder, cache)
    assert len(opened) == 12
    shades = torch.cat([bundle.train.images, bundle.test.images]).float().mean(dim=(1, 2, 3))
    assert int((shades == 250).sum()) == 1
    assert int((shades == 10).sum()) == 0


@pytest.mark.parametrize("change", ["touched", "removed", "added", "renamed", "moved"])
def test_any_change_of_the_files_is_noticed(folder: Path, cache: Path, opened: list[Path], change: str) -> None:
    load(folder, cache)
    first = folder / "cat" / "0.png"
    if change == "touched":
        os.utime(first, ns=(1, 1))
    elif change == "removed":
        first.unlink()
    elif change == "added":
        (folder / "dog" / "new.png").write_bytes(first.read_bytes())
    elif change == "renamed":
        first.rename(folder / "cat" / "zero.png")
    else:
        first.rename(folder / "dog" / "zero.png")
    opened.clear()
    found = load(folder, cache)
    assert len(opened) == {"removed": 11, "added": 13}.get(change, 12)
    assert same(found, load(folder, "off"))
    # The new copy takes the place of the old one.
    assert len(list(cache.iterdir())) == 1
    opened.clear()
    assert same(load(folder, cache), found)
    assert opened == []


def test_each_size_has_a_copy_and_other_libraries_make_a_new_one(
    folder: Path, cache: Path, opened: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    load(folder, cache)
    assert load(folder, cache, resolution=(3, 4)).resolution == (3, 4)
    assert load(folder, cache, resolution=None).resolution == (6, 5)
    assert len(list(cache.iterdir())) == 3
    opened.clear()
    monkeypatch.setattr(image_cache, "decoder", lambda: "another Pillow")
    load(folder, cache)
    assert len(opened) == 12


def test_a_damaged_copy_is_reported_and_made_again(folder: Path, cache: Path, opened: list[Path]) -> None:
    first = load(folder, cache)
    (kept,) = cache.iterdir()
    whole = kept.read_bytes()
    random = np.random.default_rng(1)
    # Every byte of the first line, and a sample of the others.
    places = [*range(whole.index(b"\n") + 1), *random.integers(0, len(whole), 40).tolist()]
    damages = [bytes([*whole[:place], whole[place] ^ (1 << place % 8), *whole[place + 1 :]]) for place in places]
    damages += [whole[:length] for length in (0, 10, 100, len(whole) - 1)] + [whole + b"0"]
    for damage in damages:
        kept.write_bytes(damage)
        opened.clear()
        heard = Heard()
        assert same(load(folder, cache, heard), first)
        assert len(opened) == 12
        assert heard.told(f"the kept images in {kept} cannot be used (")
        assert heard.told("the images are read again")
        assert kept.read_bytes() == whole


def test_a_forged_header_that_is_nested_deeply_is_as_damage(folder: Path, cache: Path, opened: list[Path]) -> None:
    first = load(folder, cache)
    (kept,) = cache.iterdir()
    whole = kept.read_bytes()
    head = b"[" * 100_000 + b"\n"
    sums = image_cache._digest(head, np.zeros(0, np.uint8))
    kept.write_bytes(whole[: whole.index(b"\n")].rpartition(b" ")[0] + f" {sums}\n".encode() + head)
    opened.clear()
    heard = Heard()
    assert same(load(folder, cache, heard), first)
    assert heard.told(f"the kept images in {kept} cannot be used (it is nested too deeply")
    assert kept.read_bytes() == whole


def test_what_could_not_be_read_is_kept_too(folder: Path, cache: Path, opened: list[Path]) -> None:
    (folder / "cat" / "bad.png").write_bytes(b"no image")
    heard = Heard()
    first = load(folder, cache, heard, skip_unreadable=True)
    left_out = f"1 of 13 images cannot be read and are left out: {folder}/cat/bad.png"
    assert heard[-1] == left_out
    opened.clear()
    again = Heard()
    assert same(load(folder, cache, again, skip_unreadable=True), first)
    assert (opened, list(again)) == ([], [left_out])


def test_small_sets_and_images_that_are_being_written_are_not_kept(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_cache, "SETTLED_SECONDS", 3600.0)
    load(folder, cache)
    monkeypatch.setattr(image_cache, "SETTLED_SECONDS", -3600.0)
    monkeypatch.setattr(image_cache, "LEAST_FILES", 13)
    load(folder, cache)
    assert not cache.exists()
    load(folder, "off")
    monkeypatch.setattr(image_cache, "LEAST_BYTES", 100)
    load(folder, cache)
    assert len(list(cache.iterdir())) == 1


def test_images_that_change_while_they_are_read_are_not_kept(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = reading.upright

    def meddle(file: Path) -> Image.Image:
        os.utime(folder / "cat" / "0.png")
        return decode(file)

    monkeypatch.setattr(reading, "upright", meddle)
    load(folder, cache)
    assert not cache.exists()


def test_a_disk_without_room_is_told_and_no_error(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 12 images of 4x4x3 bytes take 576; twice that has to be left.
    monkeypatch.setattr(image_cache.shutil, "disk_usage", lambda _path: SimpleNamespace(free=1151))
    heard = Heard()
    first = load(folder, cache, heard)
    assert heard == [f"the read images are not kept: they take 1 kB, and {cache} has 1 kB left"]
    assert list(cache.iterdir()) == []

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(image_cache.shutil, "disk_usage", lambda _path: SimpleNamespace(free=1152))
    monkeypatch.setattr("cars_hw.config.files.os.fsync", full)
    heard = Heard()
    assert same(load(folder, cache, heard), first)
    assert heard == [f"the read images are not kept in {cache}: No space left on device"]
    assert list(cache.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told_and_no_error(folder: Path, cache: Path) -> None:
    cache.parent.write_text("a file")
    heard = Heard()
    load(folder, cache, heard)
    assert heard == [f"the read images are not kept in {cache}: Not a directory"] or heard.told("are not kept")


def test_copies_that_nobody_uses_are_removed(folder: Path, cache: Path) -> None:
    load(folder, cache)
    (old,) = cache.iterdir()
    os.utime(old, (1, 1))
    (cache / "notes.txt").write_text("of somebody else")
    os.utime(cache / "notes.txt", (1, 1))
    load(folder, cache, resolution=(2, 2))
    assert not old.exists()
    assert len(list(cache.iterdir())) == 2
    # A copy that is used is not old.
    (kept,) = cache.glob("*.images")
    os.utime(kept, (1, 1))
    load(folder, cache, resolution=(2, 2))
    assert time.time() - kept.stat().st_mtime < 3600


@pytest.mark.parametrize(
    ("chosen", "variable", "expected"),
    [
        (None, None, "/home/x/.cache/cars-hw/images"),
        (None, "/elsewhere", "/elsewhere"),
        (None, "off", None),
        ("off", "/elsewhere", None),
        ("/here", "off", "/here"),
    ],
)
def test_where_images_are_kept(
    chosen: str | None, variable: str | None, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/x")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv(VARIABLE, raising=False)
    if variable is not None:
        monkeypatch.setenv(VARIABLE, variable)
    assert cache_folder(chosen) == (expected and Path(expected))


def test_a_home_that_is_not_there_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="~no-such-user/x: there is no such home folder; give the whole path"):
        cache_folder("~no-such-user/x")
    with pytest.raises(InputError, match="there is no such home folder"):
        DataSource("~no-such-user/photos").absolute()
    # Nobody asked for a place: a user of a container may have none.
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "~no-such-user/cache")
    assert cache_folder(None) is None
