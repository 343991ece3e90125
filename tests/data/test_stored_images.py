"""Images in a store: the same as in memory, made once, gone on with, verified, and shuffled by blocks."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from published_schemas import require_file

from cars_hw.data import DataBundle, Dataset, image_store, load_data, streamed
from cars_hw.data.batches import Augmentation, EvaluationBatches, TrainingBatches
from cars_hw.data.image_store import INDEX, JOURNAL, PIXELS, ImageStore, Item, Making, open_or_make
from cars_hw.data.memory import memory_limit
from cars_hw.data.streamed import StreamedDataset, blockwise_order
from cars_hw.errors import DatasetError
from cars_hw.progress import Progress, no_log, silent
from cars_hw.training.standalone import hold_out


def image(
    place: int, size: tuple[int, int] = (3, 2), channels: int = 3
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(place).integers(0, 256, (*size, channels), dtype=np.uint8)


class Maker:
    """Makes a store of 20 images, four in a block, and notes which are read."""

    def __init__(self, folder: Path, stop_at: int | None = None, grey: tuple[int, ...] = ()) -> None:
        self.folder, self.stop_at, self.grey = folder, stop_at, grey
        self.read_places: list[int] = []
        self.told: list[str] = []
        self.order = np.random.default_rng(1).permutation(20)

    def read(self, places: Sequence[int], told: Progress) -> Iterable[Item]:
        for number, place in enumerate(places):
            told("storing images", number, len(places))
            if len(self.read_places) == self.stop_at:
                raise KeyboardInterrupt
            self.read_places.append(place)
            yield Item(image(place, channels=1 if place in self.grey else 3), [place, "x"])

    def make(self, **about: object) -> ImageStore:
        making = Making(
            self.folder,
            {"of": "test", **about},
            self.order,
            self.read,
            str,
            grey=bool(self.grey),
            block_bytes=4 * 18,
        )
        return open_or_make(making, silent, self.told.append)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a store is made."""
    return tmp_path / "cache" / "set.stored"


def test_a_store_has_every_image_where_it_says_and_is_made_once(folder: Path) -> None:
    maker = Maker(folder)
    store = maker.make()
    assert store.shape == (20, 3, 3, 2)
    assert maker.read_places == maker.order.tolist()
    for place in range(20):
        (pixels,) = store.take(store.row_of[[place]])
        assert (pixels == image(place).transpose(2, 0, 1)).all()
    assert store.abouts[7] == [7, "x"]
    assert sorted(path.name for path in folder.iterdir()) == [INDEX, PIXELS]
    assert require_file(folder / INDEX) == "image-store"
    assert (folder / PIXELS).stat().st_mode & 0o777 == 0o600
    maker.read_places.clear()
    maker.make()
    assert maker.read_places == []
    # Of other images, it is made again.
    maker.make(listing="other")
    assert len(maker.read_places) == 20


def test_who_has_a_store_open_keeps_its_images_when_others_are_made_in_its_place(folder: Path) -> None:
    before = Maker(folder).make()
    rows = before.row_of[np.arange(20)]
    expected = before.take(rows)

    class Inverted(Maker):
        def read(self, places: Sequence[int], told: Progress) -> Iterable[Item]:
            for item in super().read(places, told):
                assert item.pixels is not None
                yield Item(255 - item.pixels, item.about)

    after = Inverted(folder).make(listing="other")
    assert (before.take(rows) == expected).all()
    assert (after.take(rows) == 255 - expected).all()


def test_a_store_that_was_interrupted_goes_on_after_its_last_block(folder: Path) -> None:
    whole = Maker(folder.with_name("whole.stored"))
    whole.make()
    killed = Maker(folder, stop_at=10)
    with pytest.raises(KeyboardInterrupt):
        killed.make()
    assert not (folder / INDEX).exists()
    again = Maker(folder)
    store = again.make()
    # Two blocks of four were complete.
    assert again.read_places == again.order[8:].tolist()
    assert any("after 8 of 20 images" in line for line in again.told)
    assert (folder / PIXELS).read_bytes() == (whole.folder / PIXELS).read_bytes()
    assert store.abouts == tuple([place, "x"] for place in range(20))


@pytest.mark.parametrize("harm", ["pixels", "line", "deep", "deep head", "other"])
def test_what_an_interrupted_store_has_is_verified(folder: Path, harm: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        Maker(folder, stop_at=10).make()
    path = folder / (PIXELS if harm == "pixels" else JOURNAL)
    content = bytearray(path.read_bytes())
    if harm == "pixels":
        # In the second block of 72 bytes.
        content[100] ^= 1
    elif harm == "line":
        del content[-5:]
    elif harm == "deep":
        # In place of the line of the second block.
        content[content.rstrip().rindex(b"\n") + 1 :] = b"[" * 100_000 + b"\n"
    elif harm == "deep head":
        content[: content.index(b"\n")] = b"[" * 100_000
    path.write_bytes(content)
    again = Maker(folder)
    store = again.make(**({"listing": "other"} if harm == "other" else {}))
    assert again.read_places == again.order[0 if harm in ("deep head", "other") else 4 :].tolist()
    assert all(
        (store.take(store.row_of[[place]])[0] == image(place).transpose(2, 0, 1)).all() for place in range(20)
    )


def test_damage_to_a_finished_store_is_found_when_its_block_is_read(folder: Path) -> None:
    Maker(folder).make()
    content = bytearray((folder / PIXELS).read_bytes())
    content[100] ^= 1
    (folder / PIXELS).write_bytes(content)
    store = Maker(folder).make()
    store.take(np.array([0, 3, 8]))
    with pytest.raises(DatasetError, match=r"block 1 of 5: checksum mismatch.*remove this folder"):
        store.take(np.array([0, 4]))


@pytest.mark.parametrize("harm", ["short", "index"])
def test_a_finished_store_of_another_size_or_with_a_damaged_index_is_made_again(folder: Path, harm: str) -> None:
    Maker(folder).make()
    if harm == "short":
        (folder / PIXELS).write_bytes((folder / PIXELS).read_bytes()[:-1])
    else:
        index = json.loads((folder / INDEX).read_text())
        index["sums"][0] += 1
        (folder / INDEX).write_text(json.dumps(index))
    again = Maker(folder)
    again.make()
    assert len(again.read_places) == 20
    assert "cannot be used" in again.told[0]


def test_the_first_coloured_image_makes_a_grey_store_coloured(folder: Path) -> None:
    grey = tuple(place for place in range(20) if place != Maker(folder).order[9])
    maker = Maker(folder, grey=grey)
    store = maker.make()
    assert store.shape == (20, 3, 3, 2)
    (pixels,) = store.take(store.row_of[[grey[0]]])
    assert (pixels == image(grey[0], channels=1).transpose(2, 0, 1)).all()
    only = Maker(folder.with_name("grey.stored"), grey=tuple(range(20)))
    assert only.make().shape == (20, 1, 3, 2)


def test_a_disk_without_space_is_refused_before_the_first_block(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_store.shutil, "disk_usage", lambda _path: type("Usage", (), {"free": 10}))
    with pytest.raises(DatasetError, match=r"take 1 kB in .*, which has 1 kB left"):
        Maker(folder).make()


@pytest.fixture
def pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a training and a test part: two classes of 30 and 10 images; three images make a block."""
    monkeypatch.setattr(image_store, "BLOCK_BYTES", 3 * 60)
    for part, number in (("train", 30), ("test", 10)):
        for kind, name in enumerate(("cat", "dog")):
            (tmp_path / "pets" / part / name).mkdir(parents=True)
            for place in range(number):
                seed = place + 100 * kind + 1000 * (part == "test")
                Image.fromarray(image(seed, (5, 4))).save(tmp_path / "pets" / part / name / f"{place}.png")
    return tmp_path / "pets"


def load(folder: Path, memory: int | None, **changes: object) -> DataBundle:
    settings: dict[str, object] = {"image_cache": str(folder.parent / "cache"), **changes}
    return load_data(str(folder), memory=memory, progress=silent, log=no_log, **settings)  # type: ignore[arg-type]


def together(part: Dataset) -> torch.Tensor:
    return torch.cat(list(part.pieces()))


@pytest.mark.parametrize("divided", [True, False])
def test_a_folder_beyond_the_limit_is_the_same_data_set(pets: Path, divided: bool) -> None:
    folder = pets if divided else pets / "train"
    inside, outside = load(folder, 10**6), load(folder, 100)
    assert isinstance(outside.train, StreamedDataset)
    assert not isinstance(inside.train, StreamedDataset)
    assert (inside.mean, inside.std, inside.class_names) == (outside.mean, outside.std, outside.class_names)
    assert (inside.files, inside.resolution, inside.channels) == (
        outside.files,
        outside.resolution,
        outside.channels,
    )
    for name, part in inside.parts.items():
        other = outside.parts[name]
        assert torch.equal(together(part), together(other))
        assert torch.equal(part.labels, other.labels)
        assert torch.equal(part.images, other.images)
    assert any("take 5 kB, and the limit of memory is 1 kB" in note for note in outside.notes) is divided
    with pytest.raises(DatasetError, match="they must be stored, and there is no folder"):
        load(folder, 100, image_cache="off")


def test_exactly_the_limit_is_held_in_memory(pets: Path) -> None:
    assert isinstance(load(pets, 80 * 60 - 1).train, StreamedDataset)
    assert not isinstance(load(pets, 80 * 60).train, StreamedDataset)


def test_images_that_cannot_be_read_are_left_out_of_a_stored_folder_too(pets: Path) -> None:
    (pets / "train" / "cat" / "4.png").write_bytes(b"nothing")
    with pytest.raises(DatasetError, match=r"4\.png cannot be read"):
        load(pets, 100)
    inside, outside = (load(pets, memory, skip_unreadable=True) for memory in (10**6, 100))
    assert len(outside.train) == 59
    assert torch.equal(together(inside.train), together(outside.train))
    assert inside.files == outside.files


def test_evaluation_has_the_same_batches_and_reads_the_test_part_in_the_order_of_the_file(pets: Path) -> None:
    inside, outside = load(pets, 10**6), load(pets, 100)
    batches = [EvaluationBatches(one.test, 6, one.mean, one.std, "cpu") for one in (inside, outside)]
    for (images, labels), (others, same) in zip(*batches, strict=True):
        assert torch.equal(images, others)
        assert torch.equal(labels, same)
    rows = batches[1]._dataset._rows  # type: ignore[attr-defined]
    assert torch.equal(rows, torch.arange(60, 80))


def test_training_batches_are_the_images_at_a_blockwise_order(pets: Path) -> None:
    inside, outside = load(pets, 10**6), load(pets, 100)
    train, held = hold_out(outside.train, 0.2, 5)
    same, _ = hold_out(inside.train, 0.2, 5)
    assert held is not None
    assert (len(train), len(held)) == (48, 12)
    varied = Augmentation(1)
    batches = TrainingBatches(train, 10, outside.mean, outside.std, varied, device="cpu")
    generator, expected = (torch.Generator().manual_seed(3) for _ in range(2))
    order = train.shuffled(expected)
    for epoch in range(2):
        if epoch:
            order = train.shuffled(expected)
        assert order.sort().values.tolist() == list(range(48))
        for number, (images, labels) in enumerate(batches.epoch(generator)):
            chosen = order[10 * number : 10 * number + 10]
            wanted = varied.apply(same.images[chosen], expected, batches._normalise)
            assert torch.equal(images, wanted)
            assert torch.equal(labels, same.labels[chosen])


def test_an_epoch_mixes_a_window_of_blocks_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed, "WINDOW", 16)
    # Every second image of a store of 400 is in the data set, in an order of its own.
    rows = 2 * torch.randperm(200, generator=torch.Generator().manual_seed(0))
    orders = [blockwise_order(rows, 5, torch.Generator().manual_seed(seed)) for seed in (7, 7, 8)]
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])
    assert orders[0].sort().values.tolist() == list(range(200))
    window = 5 * streamed.WINDOW
    assert 2 * window < 200
    stretches = [set((rows[part] // 10).tolist()) for part in torch.split(orders[0], window)]
    assert [len(one) for one in stretches] == [16, 16, 8]
    assert not stretches[0] & stretches[1]
    # Images of a block do not follow each other: 80 images of 16 blocks in a row would change the block 15 times.
    blocks = rows[orders[0][:window]] // 10
    assert int((blocks[1:] != blocks[:-1]).sum()) > 60
    assert max(stretches[0]) > 16


def test_a_reader_that_is_left_early_ends_its_thread(pets: Path) -> None:
    outside = load(pets, 100)
    before = threading.active_count()
    found = outside.train.batches([torch.arange(3)] * 20)
    next(found)
    assert threading.active_count() == before + 1
    del found
    assert threading.active_count() == before


def test_the_limit_is_a_half_of_the_machine_or_of_the_container(tmp_path: Path) -> None:
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    whole = memory_limit(None, tmp_path)
    assert whole > 10**8
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("max\n")
    assert memory_limit(None, tmp_path) == whole
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("4000000\n")
    assert memory_limit(None, tmp_path) == 2_000_000
    assert memory_limit(77, tmp_path) == 77
