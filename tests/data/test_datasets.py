from __future__ import annotations

import gzip
import hashlib
import importlib.util
import os
import pickle
import struct
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10

from cars_hw.config.data import DATA_SETS
from cars_hw.data import DataBundle, Dataset, load_data
from cars_hw.errors import DatasetError

SHA256 = "5a8acfcded29a8a6979eed4ae58b5b2c0e257c2190548be6ac5251a8b13a6b97"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
TOOL = Path(__file__).parents[2] / "tools" / "make_fashion_mini.py"


@pytest.fixture(scope="module")
def mini() -> DataBundle:
    return load_data("fashion-mini")


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_fashion_mini", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def refused(
    source: str,
    root: Path | None = None,
    download: bool = False,
    resolution: tuple[int, int] | None = None,
) -> str:
    """Return the message that ``load_data`` refuses ``source`` with, which must be a single line."""
    with pytest.raises(DatasetError) as caught:
        load_data(source, root=root, download=download, resolution=resolution)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_embedded_file_is_the_one_that_was_made() -> None:
    content = resources.files("cars_hw.data").joinpath("fashion_mini.npz").read_bytes()
    assert hashlib.sha256(content).hexdigest() == SHA256


def test_embedded_set(mini: DataBundle) -> None:
    assert mini.name == "fashion-mini"
    assert mini.train.images.shape == (5000, 1, 28, 28)
    assert mini.test.images.shape == (1000, 1, 28, 28)
    assert torch.bincount(mini.train.labels).tolist() == [500] * 10
    assert torch.bincount(mini.test.labels).tolist() == [100] * 10
    assert (mini.channels, mini.resolution, mini.classes) == (1, (28, 28), 10)
    assert mini.class_names[0] == "T-shirt/top"
    assert mini.class_names[9] == "Ankle boot"
    assert torch.bincount(mini.train.labels[:500]).min() > 30, "the images must not be sorted by class"


def test_no_test_image_is_a_training_image(mini: DataBundle) -> None:
    train, test = ({image.numpy().tobytes() for image in part.images} for part in (mini.train, mini.test))
    assert not train & test


def test_statistics_are_those_of_the_pixels(mini: DataBundle) -> None:
    pixels = mini.train.images.double() / 255
    assert mini.mean == pytest.approx([float(pixels.mean())], rel=1e-9)
    assert mini.std == pytest.approx([float(pixels.std(correction=0))], rel=1e-9)
    assert mini.mean == pytest.approx([0.286], abs=0.005)  # Fashion-MNIST's well-known mean
    assert mini.std == pytest.approx([0.353], abs=0.005)


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
def test_embedded_set_can_be_made_again(tool: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "again.npz"
    tool.make(DEBIAN, out)
    with np.load(tool.OUT, allow_pickle=False) as shipped, np.load(out, allow_pickle=False) as made:
        assert sorted(shipped) == sorted(made)
        for name in shipped:
            assert np.array_equal(shipped[name], made[name])


def test_the_tool_draws_evenly_and_writes_the_same_bytes(tool: ModuleType, tmp_path: Path) -> None:
    labels = np.repeat(np.arange(3, dtype=np.uint8), [20, 30, 40])
    chosen = tool.draw(labels, 10, 1)
    assert np.bincount(labels[chosen]).tolist() == [10, 10, 10]
    assert len(set(chosen.tolist())) == 30
    assert chosen.tolist() == tool.draw(labels, 10, 1).tolist() != tool.draw(labels, 10, 2).tolist()
    with pytest.raises(ValueError, match="class 0 has 20 images"):
        tool.draw(labels, 21, 1)

    digests = {tool.write_npz(tmp_path / name, {"labels": labels}) for name in ("a.npz", "b.npz")}
    assert digests == {hashlib.sha256((tmp_path / "a.npz").read_bytes()).hexdigest()}


def test_built_in_sets_are_resized_on_request(mini: DataBundle) -> None:
    half = load_data("fashion-mini", resolution=(14, 7))
    assert half.resolution == (14, 7)
    assert half.train.images.dtype == torch.uint8
    assert torch.equal(half.test.labels, mini.test.labels)
    assert half.mean == pytest.approx(mini.mean, abs=0.005)
    assert "give at least 1x1" in refused("fashion-mini", resolution=(0, 28))


def test_select_and_to_keep_images_with_their_labels() -> None:
    dataset = Dataset(torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1), torch.arange(5) * 10)
    chosen = dataset.select(torch.tensor([3, 1])).to("cpu")
    assert chosen.images.flatten().tolist() == [3, 1]
    assert chosen.labels.tolist() == [30, 10]
    assert len(chosen) == 2


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (torch.zeros(2, 1, 3, 3), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(2, 3, 3, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(2, 1, 3, 3, dtype=torch.uint8), torch.zeros(2)),
        (torch.zeros(2, 1, 3, 3, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64)),
    ],
)
def test_other_tensors_are_no_data_set(images: torch.Tensor, labels: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="must be"):
        Dataset(images, labels)


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    message = refused("imagenet")
    assert "'imagenet'" in message
    assert all(name in message for name in DATA_SETS)


@pytest.mark.parametrize("source", ["fashion-mnist", "cifar10"])
def test_nothing_is_downloaded_unasked(source: str, tmp_path: Path) -> None:
    assert str(tmp_path) in refused(source, root=tmp_path)
    with pytest.raises(DatasetError) as raised:
        load_data(source, root=tmp_path)
    assert raised.value.remedy == "download"
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_a_failed_download_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: CIFAR10) -> None:
        raise OSError("no route to host\nand more")

    monkeypatch.setattr(CIFAR10, "download", fail)
    assert "(no route to host); check the network" in refused("cifar10", root=tmp_path, download=True)


def idx(array: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def put_fashion_mnist(root: Path, images: np.ndarray[Any, np.dtype[np.uint8]]) -> Path:
    """Write five training images, of which three are test images too; return the folder of the files."""
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 5), ("t10k", 3)):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(images[:count]))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.arange(count, dtype=np.uint8)))
    return raw


def test_resizing_averages_over_what_it_drops(tmp_path: Path) -> None:
    # Without antialiasing, a quarter of the size would be taken from the two bright rows of each four.
    stripes = np.zeros((5, 28, 28), np.uint8)
    stripes[:, 1::4] = stripes[:, 2::4] = 255
    put_fashion_mnist(tmp_path, stripes)
    images = load_data("fashion-mnist", root=tmp_path, resolution=(7, 7)).train.images
    assert images.shape == (5, 1, 7, 7)
    assert 100 < images[:, :, 1:-1].min() <= images[:, :, 1:-1].max() < 180


def test_resizing_keeps_an_even_image_as_it_is(tmp_path: Path) -> None:
    values = np.array([1, 63, 127, 200, 255], np.uint8)
    put_fashion_mnist(tmp_path, np.tile(values[:, None, None], (28, 28)))
    images = load_data("fashion-mnist", root=tmp_path, resolution=(5, 9)).train.images
    assert images.flatten(1).unique(dim=1).flatten().tolist() == values.tolist()


@pytest.mark.parametrize(("resolution", "larger"), [((28, 28), False), ((32, 20), True), ((20, 32), True)])
def test_images_that_are_enlarged_are_told(resolution: tuple[int, int], larger: bool, tmp_path: Path) -> None:
    put_fashion_mnist(tmp_path, np.zeros((5, 28, 28), np.uint8))
    told: list[str] = []
    bundle = load_data("fashion-mnist", root=tmp_path, resolution=resolution, log=told.append)
    text = f"the images of fashion-mnist have 28x28 pixels; they are enlarged to {resolution[0]}x{resolution[1]}"
    assert bundle.notes == tuple(told) == ((text,) if larger else ())


def test_fashion_mnist_is_read_from_torchvisions_folder(tmp_path: Path) -> None:
    images = np.arange(5 * 28 * 28).astype(np.uint8).reshape(5, 28, 28)
    raw = put_fashion_mnist(tmp_path, images)
    bundle = load_data("fashion-mnist", root=tmp_path)
    assert torch.equal(bundle.train.images, torch.from_numpy(images)[:, None])
    assert bundle.train.labels.tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(bundle.test.images, torch.from_numpy(images)[:3, None])
    assert bundle.classes == 10

    (raw / "t10k-images-idx3-ubyte").write_bytes(idx(images[:3])[:-1])
    assert "damaged" in refused("fashion-mnist", root=tmp_path)


def test_the_tool_reads_idx_files_of_bytes_only(tool: ModuleType, tmp_path: Path) -> None:
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "x.gz").write_bytes(gzip.compress(idx(images)))
    assert np.array_equal(tool.read_idx(tmp_path / "x.gz"), images)
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"\0\0\x0d\1" + bytes(8)))
    with pytest.raises(ValueError, match="not an IDX file"):
        tool.read_idx(tmp_path / "x.gz")


CIFAR_FILES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"]


@pytest.fixture
def cifar_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make CIFAR-10's files with two images each, and make torchvision expect their digests."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    digests = []
    for number, name in enumerate(CIFAR_FILES):
        pixels = np.repeat(np.arange(3, dtype=np.uint8) + 10 * number, 1024)
        content: dict[str, object] = {"data": np.stack([pixels, pixels]), "labels": [number, 9]}
        pickled = pickle.dumps(content if "batch_" in name or "test" in name else {"label_names": ["x"]}, 2)
        # The real files, which are of 2009, spell the flags of a dtype as numbers.
        pickled = pickled.replace(b"\x89\x88", b"K\x00K\x01")
        (folder / name).write_bytes(pickled)
        digests.append([name, hashlib.md5(pickled).hexdigest()])
    monkeypatch.setattr(CIFAR10, "train_list", digests[:5])
    monkeypatch.setattr(CIFAR10, "test_list", digests[5:6])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": digests[6][1]}
    monkeypatch.setattr(CIFAR10, "meta", meta)
    return tmp_path


def test_cifar10_is_read_from_torchvisions_folder(cifar_root: Path) -> None:
    bundle = load_data("cifar10", root=cifar_root)
    assert bundle.train.images.shape == (10, 3, 32, 32)
    assert bundle.train.images[2, :, 31, 0].tolist() == [10, 11, 12]
    assert bundle.train.images.is_contiguous()
    assert bundle.train.labels.tolist() == [0, 9, 1, 9, 2, 9, 3, 9, 4, 9]
    assert bundle.test.labels.tolist() == [5, 9]
    assert bundle.class_names[9] == "truck"
    # Each channel has 0, 10, 20, 30 and 40, with a variance of 200, or these plus 1 or 2: 20, 21 and 22 on average.
    assert bundle.mean == pytest.approx([21 / 255] * 3)
    assert bundle.std == pytest.approx([(200 + 2 / 3) ** 0.5 / 255] * 3)


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", CIFAR_FILES)
def test_an_altered_pickle_is_never_loaded(cifar_root: Path, name: str) -> None:
    exploded = cifar_root / "exploded"
    (cifar_root / "cifar-10-batches-py" / name).write_bytes(pickle.dumps(Bomb(exploded)))
    assert "damaged" in refused("cifar10", root=cifar_root)
    assert not exploded.exists()
