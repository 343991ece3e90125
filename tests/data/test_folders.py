from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cars_hw.data import load_data, reading
from cars_hw.errors import DatasetError


def save(
    path: Path,
    value: int | tuple[int, ...] = 0,
    size: tuple[int, int] = (4, 3),
    mode: str = "L",
) -> None:
    """Save an image of one colour; ``size`` is height and width."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size[::-1], value).save(path)


def fill(folder: Path, name: str, values: range, size: tuple[int, int] = (4, 3)) -> None:
    for value in values:
        save(folder / name / f"{value:03}.png", value, size)


def values_of(images: torch.Tensor) -> list[int]:
    """Return the grey values of images of one colour each."""
    return images[:, 0, 0, 0].tolist()


def refused(folder: Path, resolution: tuple[int, int] | None = None) -> str:
    """Return the message that ``load_data`` refuses ``folder`` with, which must be a single line."""
    with pytest.raises(DatasetError) as caught:
        load_data(str(folder), resolution=resolution)
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


def test_a_sixth_of_every_class_is_kept_for_the_test(tmp_path: Path) -> None:
    fill(tmp_path, "dog", range(100, 112))
    fill(tmp_path, "cat", range(24))
    bundle = load_data(str(tmp_path))

    assert bundle.name == tmp_path.name
    assert bundle.class_names == ("cat", "dog")
    assert (bundle.channels, bundle.resolution, bundle.classes) == (1, (4, 3), 2)
    assert torch.bincount(bundle.train.labels).tolist() == [20, 10]
    assert torch.bincount(bundle.test.labels).tolist() == [4, 2]
    everything = values_of(bundle.train.images) + values_of(bundle.test.images)
    assert sorted(everything) == [*range(24), *range(100, 112)]
    for part in (bundle.train, bundle.test):
        assert part.labels.tolist() == [int(value >= 100) for value in values_of(part.images)]


def test_the_seed_decides_which_sixth(tmp_path: Path) -> None:
    fill(tmp_path, "cat", range(24))
    fill(tmp_path, "dog", range(100, 124))
    first, again, other = (values_of(load_data(str(tmp_path), seed=seed).test.images) for seed in (1, 1, 2))
    assert first == again
    assert sorted(first) != sorted(other)


@pytest.mark.parametrize("held_out", ["test", "val"])
def test_the_parts_of_a_folder_are_respected(tmp_path: Path, held_out: str) -> None:
    for name, value in (("cat", 10), ("dog", 20)):
        fill(tmp_path / "train", name, range(value, value + 2))
        fill(tmp_path / held_out, name, range(value + 5, value + 6))
    bundle = load_data(str(tmp_path))
    assert values_of(bundle.train.images) == [10, 11, 20, 21]
    assert bundle.train.labels.tolist() == [0, 0, 1, 1]
    assert values_of(bundle.test.images) == [15, 25]
    assert bundle.test.labels.tolist() == [0, 1]
    # Over the training part alone: 10, 11, 20, 21 have a mean of 15.5 and a variance of 25.25.
    assert bundle.mean == pytest.approx([15.5 / 255])
    assert bundle.std == pytest.approx([25.25**0.5 / 255])


def test_a_validation_part_beside_a_test_part_judges(tmp_path: Path) -> None:
    for part, value in (("train", 1), ("Valid", 2), ("testing", 3)):
        for name in ("cat", "dog"):
            save(tmp_path / part / name / "a.png", value)
    bundle = load_data(str(tmp_path))
    assert bundle.validation is not None
    assert [values_of(part.images) for part in (bundle.train, bundle.validation, bundle.test)] == [
        [1, 1],
        [2, 2],
        [3, 3],
    ]
    assert bundle.validation.labels.tolist() == [0, 1]
    assert bundle.notes == ()


def test_a_validation_part_without_a_test_part_is_the_test_part_which_is_told(tmp_path: Path) -> None:
    for part, value in (("train", 1), ("val", 2)):
        for name in ("cat", "dog"):
            save(tmp_path / part / name / "a.png", value)
    bundle = load_data(str(tmp_path))
    assert bundle.validation is None
    assert values_of(bundle.test.images) == [2, 2]
    assert bundle.notes == (
        f"{tmp_path}: there is no test part: the validation part is the test part, and decides nothing else",
    )


def test_a_training_part_alone_is_divided_like_a_folder_without_parts(tmp_path: Path) -> None:
    fill(tmp_path / "train", "dog", range(100, 112))
    fill(tmp_path / "train", "cat", range(24))
    bundle = load_data(str(tmp_path))
    assert torch.bincount(bundle.train.labels).tolist() == [20, 10]
    assert torch.bincount(bundle.test.labels).tolist() == [4, 2]


def test_one_colour_image_makes_all_of_them_colour(tmp_path: Path) -> None:
    fill(tmp_path, "cat", range(10, 14))
    fill(tmp_path, "dog", range(20, 24))
    assert load_data(str(tmp_path)).channels == 1
    save(tmp_path / "dog" / "colour.png", (1, 2, 3), mode="RGB")
    bundle = load_data(str(tmp_path))
    images = torch.cat([bundle.train.images, bundle.test.images])
    colours = sorted(images[:, :, 0, 0].tolist())
    assert colours == [[1, 2, 3], *([value] * 3 for value in [*range(10, 14), *range(20, 24)])]


def test_all_channels_are_normalised_alike(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        for index in range(4):
            save(tmp_path / name / f"{index}.png", (102, 51, 0), mode="RGB")
    bundle = load_data(str(tmp_path))
    assert bundle.mean == pytest.approx([0.2] * 3)
    assert bundle.std == pytest.approx([(0.08 / 3) ** 0.5] * 3)


def test_images_that_never_vary_can_be_divided_by_their_deviation(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        for index in range(4):
            save(tmp_path / name / f"{index}.png", (51, 51, 51), mode="RGB")
    bundle = load_data(str(tmp_path))
    assert bundle.mean == pytest.approx([0.2] * bundle.channels)
    assert bundle.std == (1.0,) * bundle.channels


def test_every_kind_of_image_is_read(tmp_path: Path) -> None:
    suffixes = ["png", "JPG", "jpeg", "bmp", "webp", "gif", "tiff", "ppm"]
    for name in ("cat", "dog"):
        for suffix in suffixes:
            save(tmp_path / name / f"a.{suffix}", (200, 200, 200), mode="RGB")
        for mode, value in (("RGBA", (200, 200, 200, 0)), ("L", 200), ("LA", (200, 0))):
            save(tmp_path / name / f"{mode}.png", value, mode=mode)
        palette = Image.new("P", (3, 4), 1)
        palette.putpalette([0, 0, 0, 200, 200, 200])
        palette.save(tmp_path / name / "P.png", transparency=b"\xff\x00")
        (tmp_path / name / "notes.txt").write_text("no image")
        (tmp_path / name / "._a.png").write_bytes(b"no image")
    (tmp_path / ".git").mkdir()
    (tmp_path / "README").write_text("no class")
    bundle = load_data(str(tmp_path))
    images = torch.cat([bundle.train.images, bundle.test.images])
    assert images.shape == (2 * (len(suffixes) + 4), 3, 4, 3)
    assert images.int().sub(200).abs().max() <= 1


def test_images_are_turned_upright(tmp_path: Path) -> None:
    pixels = np.zeros((4, 3), np.uint8)
    pixels[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera's top is the picture's right
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for index in range(4):
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png", exif=exif)
    bundle = load_data(str(tmp_path))
    assert bundle.resolution == (3, 4)
    assert bundle.train.images[0, 0].tolist() == [[0, 0, 0, 255], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_images_are_resized_on_request(tmp_path: Path) -> None:
    fill(tmp_path, "cat", range(10, 14), size=(8, 8))
    fill(tmp_path, "dog", range(20, 24), size=(5, 9))
    message = refused(tmp_path)
    assert "8x8" in message
    assert "5x9" in message
    with pytest.raises(DatasetError) as raised:
        load_data(str(tmp_path))
    assert raised.value.remedy == "resize"
    bundle = load_data(str(tmp_path), resolution=(6, 7))
    assert bundle.resolution == (6, 7)
    assert sorted(values_of(torch.cat([bundle.train.images, bundle.test.images]))) == [
        *range(10, 14),
        *range(20, 24),
    ]


def test_resizing_averages_over_what_it_drops(tmp_path: Path) -> None:
    checks = (np.indices((16, 16)).sum(0) % 2 * 255).astype(np.uint8)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for index in range(4):
            Image.fromarray(checks).save(tmp_path / name / f"{index}.png")
    images = load_data(str(tmp_path), resolution=(4, 4)).train.images
    assert images.int().sub(127).abs().max() < 16


@pytest.mark.parametrize("count", [1, 3, 4])
def test_a_class_that_is_too_small_to_split(tmp_path: Path, count: int) -> None:
    fill(tmp_path, "cat", range(10))
    fill(tmp_path, "dog", range(count))
    if count < 4:
        message = refused(tmp_path)
        assert f"class dog in {tmp_path} has too few images to split ({count})" in message
        assert "at least 4" in message
    else:
        assert torch.bincount(load_data(str(tmp_path)).test.labels).tolist() == [2, 1]


@pytest.mark.parametrize("resolution", [None, (4, 3)])
@pytest.mark.parametrize("content", [b"", b"no image", "truncated"])
def test_an_unreadable_image_is_named(
    tmp_path: Path, content: bytes | str, resolution: tuple[int, int] | None
) -> None:
    fill(tmp_path, "cat", range(4))
    fill(tmp_path, "dog", range(4))
    broken = tmp_path / "dog" / "002.png"
    broken.write_bytes(broken.read_bytes()[:50] if isinstance(content, str) else content)
    message = refused(tmp_path, resolution=resolution)
    assert f"{broken} cannot be read as an image" in message


def test_several_unreadable_images_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    fill(tmp_path, "cat", range(8))
    fill(tmp_path, "dog", range(8))
    for number in (2, 5):
        (tmp_path / "cat" / f"{number:03}.png").write_bytes(b"no image")
    with pytest.raises(DatasetError) as raised:
        load_data(str(tmp_path))
    assert str(raised.value) == (
        f"{tmp_path}/cat/002.png cannot be read as an image; replace or remove it "
        f"(2 images in {tmp_path} cannot be read)"
    )
    assert raised.value.remedy == "skip-unreadable"


@pytest.mark.parametrize("parts", [False, True])
def test_unreadable_images_are_left_out_on_request(tmp_path: Path, parts: bool) -> None:
    below = [tmp_path / "train", tmp_path / "val", tmp_path / "test"] if parts else [tmp_path]
    for place, folder in enumerate(below):
        fill(folder, "cat", range(60 * place, 60 * place + 12))
        fill(folder, "dog", range(60 * place + 20, 60 * place + 32))
    bad = [*(below[0] / "cat" / f"{number:03}.png" for number in (0, 3, 11)), below[-1] / "dog" / "heic.HEIC"]
    for path in bad:
        path.write_bytes(b"no image")
    bundle = load_data(str(tmp_path), skip_unreadable=True)
    everything = 72 if parts else 24
    assert bundle.notes == (
        f"4 of {everything + 1} images cannot be read and are left out: "
        f"{', '.join(str(path) for path in bad[:3])} and 1 more",
    )
    found = [bundle.train, *([bundle.validation] if bundle.validation else []), bundle.test]
    assert len(found) == (3 if parts else 2)
    for place, part in enumerate(found):
        # Each image is with its own label.
        offset = 60 * place if parts else 0
        assert part.labels.tolist() == [int(value - offset >= 20) for value in values_of(part.images)]
    left = {value for part in found for value in values_of(part.images)}
    wanted = {*range(12), *range(20, 32)} - {0, 3, 11}
    assert left == (
        wanted | {one + 60 * place for place in (1, 2) for one in {*range(12), *range(20, 32)}} if parts else wanted
    )


def test_a_class_that_is_left_without_images_is_refused(tmp_path: Path) -> None:
    for part in ("train", "test"):
        fill(tmp_path / part, "cat", range(3))
        fill(tmp_path / part, "dog", range(3))
    for number in range(3):
        (tmp_path / "test" / "dog" / f"{number:03}.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"class dog in the test part of .* has no image that can be read"):
        load_data(str(tmp_path), skip_unreadable=True)


def test_threads_read_the_same_in_the_same_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "cat", range(60))
    fill(tmp_path, "dog", range(100, 160))
    (tmp_path / "dog" / "155.png").write_bytes(b"no image")
    found = []
    for cores in (1, 5):
        monkeypatch.setattr(reading, "_cores", lambda cores=cores: cores)
        steps: list[int] = []

        def progress(_stage: str, done: int, _total: int, steps: list[int] = steps) -> None:
            steps.append(done)

        bundle = load_data(str(tmp_path), skip_unreadable=True, progress=progress)
        assert steps == list(range(121))
        found.append(bundle)
    assert torch.equal(found[0].train.images, found[1].train.images)
    assert torch.equal(found[0].test.images, found[1].test.images)
    assert len(found[0].train) + len(found[0].test) == 119


def test_an_error_in_a_thread_ends_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_cores", lambda: 2)
    done: list[int] = []

    def work(number: int) -> int:
        done.append(number)
        if number == 3:
            raise ValueError("three")
        return number

    with pytest.raises(ValueError, match="three"):
        list(reading.in_threads(work, range(1000), lambda *_: None, "working"))
    assert len(done) < 40


def test_a_note_is_one_line_whatever_a_file_is_called(tmp_path: Path) -> None:
    fill(tmp_path, "cat", range(4))
    fill(tmp_path, "dog", range(4))
    (tmp_path / "dog" / "two\nlines.png").write_bytes(b"no image")
    (note,) = load_data(str(tmp_path), skip_unreadable=True).notes
    assert note == f"1 of 9 images cannot be read and are left out: {tmp_path}/dog/two\\nlines.png"
