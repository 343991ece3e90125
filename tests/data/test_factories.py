"""Data sets that functions make: torch's and Hugging Face's, whatever their items are, and what is refused."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Subset, TensorDataset

from cars_hw.config.data import is_factory, is_folder
from cars_hw.data import DataBundle, Dataset, load_data
from cars_hw.data.streamed import StreamedDataset
from cars_hw.errors import DatasetError

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (12, 6, 5, 3), np.uint8)
LABELS = [n % 3 for n in range(12)]
SOURCE = "made_here:make"

Give = Callable[[object], str]


@pytest.fixture
def give(monkeypatch: pytest.MonkeyPatch) -> Give:
    """Return a function that makes a factory return its argument."""
    module = ModuleType("made_here")
    monkeypatch.setitem(sys.modules, "made_here", module)

    def made(value: object) -> str:
        module.make = lambda: value  # type: ignore[attr-defined]
        return SOURCE

    return made


def load(source: str, resolution: tuple[int, int] | None = None) -> DataBundle:
    return load_data(source, resolution=resolution, log=lambda _: None)


def items(convert: Callable[[Any], Any]) -> list[tuple[Any, int]]:
    return [(convert(pixels), label) for pixels, label in zip(PIXELS, LABELS, strict=True)]


class Mapped:
    """A data set of torch's kind: a length and items by index, and no iterator."""

    def __init__(self, content: list[Any]) -> None:
        self.content = content
        self.classes = ["red", "green", "blue"]

    def __len__(self) -> int:
        return len(self.content)

    def __getitem__(self, index: int) -> object:
        return self.content[index]

    __iter__ = None


def hugging_face(content: list[tuple[Any, int]]) -> Mapped:
    """Stand for a data set of the package ``datasets``, which is not installed."""
    rows = [{"index": 7, "picture": image, "animal": label} for image, label in content]
    names = SimpleNamespace(names=["red", "green", "blue"])
    features = {
        "index": object(),
        "picture": type("Image", (), {})(),
        "animal": type("ClassLabel", (), vars(names))(),
    }
    found = Mapped(rows)
    del found.classes
    found.features = features  # type: ignore[attr-defined]
    return found


TENSOR = items(lambda pixels: torch.from_numpy(pixels).permute(2, 0, 1))


@pytest.mark.parametrize(
    "part",
    [
        items(lambda pixels: pixels),
        items(Image.fromarray),
        TENSOR,
        items(lambda pixels: torch.from_numpy(pixels).permute(2, 0, 1).float() / 255),
        items(lambda pixels: pixels / 255),
        items(lambda pixels: pixels.astype(np.int64)),
        Mapped(TENSOR),
        TensorDataset(torch.from_numpy(PIXELS).permute(0, 3, 1, 2), torch.tensor(LABELS)),
        hugging_face(items(Image.fromarray)),
        [{"img": image, "label": np.int64(label)} for image, label in items(Image.fromarray)],
    ],
    ids=(
        "array",
        "pillow",
        "tensor",
        "fractions",
        "array fractions",
        "int64",
        "map-style",
        "torch",
        "hf",
        "mapping",
    ),
)
def test_the_same_pixels_are_the_same_data_whatever_gives_them(part: object, give: Give) -> None:
    bundle = load(give((part, part)))
    assert bundle.name == SOURCE
    for one in (bundle.train, bundle.test):
        assert np.array_equal(one.images.permute(0, 2, 3, 1).numpy(), PIXELS)
        assert one.labels.tolist() == LABELS
    assert bundle.class_names in {("0", "1", "2"), ("red", "green", "blue")}
    assert bundle.mean[0] == pytest.approx(PIXELS.mean() / 255)
    plain = load(give((TENSOR, TENSOR)))
    assert (plain.digest == bundle.digest) is (plain.class_names == bundle.class_names)


def test_names_come_from_the_data_set_through_subsets_and_from_labels(give: Give) -> None:
    subset = Subset(Mapped(TENSOR), [1, 3, 5, 2])
    assert load(give((subset, subset))).class_names == ("red", "green", "blue")
    named = [(image, ("b", "a", "c")[label]) for image, label in TENSOR]
    bundle = load(give({"train": named, "validation": named, "test": named}))
    assert bundle.class_names == ("a", "b", "c")
    assert bundle.test.labels.tolist() == [(1, 0, 2)[label] for label in LABELS]
    assert bundle.validation is not None


def test_parts_whose_numbers_mean_other_classes_are_refused(give: Give) -> None:
    fewer = Mapped(TENSOR)
    fewer.classes = ["green", "red", "blue"]
    with pytest.raises(
        DatasetError, match=r"the parts have different classes, such as \['red', 'green', 'blue'\] and"
    ):
        load(give((Mapped(TENSOR), fewer)))
    assert load(give((Mapped(TENSOR), TENSOR))).class_names == ("red", "green", "blue")
    with pytest.raises(DatasetError, match="two validation parts, one is"):
        load(give({"train": TENSOR, "val": TENSOR, "validation": TENSOR, "test": TENSOR}))


def test_images_are_resized_and_grey_ones_among_colour_become_colour(give: Give) -> None:
    grey = Image.fromarray(RNG.integers(0, 256, (9, 4), np.uint8))
    content = [(grey, 0), *items(Image.fromarray)]
    bundle = load(give((content, content)), (3, 3))
    assert bundle.train.images.shape == (13, 3, 3, 3)
    red, green, blue = bundle.train.images[0]
    assert torch.equal(red, green)
    assert torch.equal(red, blue)
    assert np.array_equal(red.numpy(), np.asarray(grey.resize((3, 3), Image.Resampling.BILINEAR)))
    with pytest.raises(DatasetError, match=r"images differ in size, such as 6x5 and 9x4 pixels"):
        load(give((content, content)))
    only = [(grey, n % 2) for n in range(8)]
    assert load(give((only, only))).channels == 1


def test_the_digest_is_that_of_what_is_given_and_of_no_resolution(give: Give) -> None:
    before = load(give((TENSOR, TENSOR))).digest
    assert load(SOURCE, (3, 3)).digest == before
    changed = [(TENSOR[0][0] ^ 1, 0), *TENSOR[1:]]
    relabelled = [(TENSOR[0][0], 2), *TENSOR[1:]]
    for train, test in ((changed, TENSOR), (TENSOR, changed), (relabelled, TENSOR), (TENSOR[::-1], TENSOR)):
        assert load(give((train, test))).digest != before


def test_without_a_test_part_one_is_drawn_or_the_validation_part_is_it(give: Give) -> None:
    content = list(itertools.chain.from_iterable([TENSOR] * 2))
    bundle = load(give(content))
    assert bundle.drawn_test
    assert [torch.bincount(part.labels).tolist() for part in (bundle.train, bundle.test)] == [[7, 7, 7], [1, 1, 1]]
    assert load(SOURCE, (3, 3)).test.labels.tolist() == bundle.test.labels.tolist()
    assert bundle.notes == (f"{SOURCE}: 0.167 of each class are the test part",)
    bundle = load(give({"train": content, "val": TENSOR}))
    assert (len(bundle.test), bundle.validation, bundle.drawn_test) == (12, None, False)


def test_a_bundle_is_taken_with_its_normalisation(give: Give) -> None:
    part = Dataset(torch.from_numpy(PIXELS).permute(0, 3, 1, 2).contiguous(), torch.tensor(LABELS))
    made = DataBundle("own", part, part, ("a", "b", "c"), (0.1, 0.2, 0.3), (1.0, 1.0, 2.0))
    bundle = load(give(made), (3, 4))
    assert (bundle.resolution, bundle.mean, bundle.std) == ((3, 4), made.mean, made.std)
    assert bundle.digest == load(SOURCE).digest != ""
    for mean, std in (((0.1,), (1.0,)), (made.mean, (1.0, 0.0, 1.0))):
        with pytest.raises(DatasetError, match="mean and std need a number for each of the 3 channels"):
            load(give(replace(made, mean=mean, std=std)))
    with pytest.raises(DatasetError, match="labels beyond those of 2 classes"):
        load(give(DataBundle("own", part, part, ("a", "b"), (0.1,) * 3, (1.0,) * 3)))


def forever() -> Iterator[Any]:
    yield from TENSOR
    raise RuntimeError("the disk is gone\nand more")


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (None, "returned nothing"),
        ((TENSOR, TENSOR, TENSOR), "returned 3 parts"),
        ({"train": TENSOR, "extra": TENSOR}, "the keys train, extra"),
        ({"test": TENSOR}, "must have train"),
        (7, "type int, whose items cannot be listed"),
        ([], "the train part has no images"),
        (forever(), r"failed: RuntimeError: the disk is gone$"),
        ([TENSOR[0][0]], "no pair of image and label"),
        ([{"x": 1, "label": 2}], "has the keys x, label"),
        ([(torch.zeros(4, 3, 8, 8), 0)], r"the shape \(4, 3, 8, 8\); a single image \(C, H, W\)"),
        ([(np.zeros((8, 8, 4)), 0)], r"the shape \(8, 8, 4\)"),
        ([(torch.randn(3, 8, 8), 0)], "before they are normalised"),
        ([(torch.full((3, 8, 8), torch.nan), 0)], "before they are normalised"),
        ([(np.full((8, 8), 256), 0)], "pixels of the type int64"),
        ([("a.png", 0)], "an image of the type str"),
        ([(PIXELS[0], -1)], "the label -1"),
        ([(PIXELS[0], 0.0)], "the label 0.0"),
        ([(PIXELS[0], 0), (PIXELS[0], "a")], "some labels are numbers"),
        ([(PIXELS[0], 0)] * 5, "at least two classes"),
        (TENSOR[:11], r"class 2 has too few images to split \(3\)"),
        ((Mapped([(PIXELS[0], 3)]),) * 2, "a label 3, and 3 class names"),
    ],
)
def test_what_cannot_be_used_is_told_in_a_line(made: object, message: str, give: Give) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        load(give(made))
    assert str(caught.value).startswith(SOURCE)
    assert "\n" not in str(caught.value)


def test_a_function_is_found_in_the_current_folder_and_what_is_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "of_this_folder", raising=False)
    Path("of_this_folder.py").write_text(
        "import numpy as np\nnumber = 3\nclass Kind:\n    @staticmethod\n"
        "    def make():\n        return [(np.full((4, 4), 20 * n, np.uint8), n % 2) for n in range(12)]\n"
    )
    Path("broken_of_this_folder.py").write_text("1 / 0\n")
    assert len(load("of_this_folder:Kind.make").train) == 10
    assert str(tmp_path) not in sys.path
    for source, message in (
        ("of_this_folder:gone", "of_this_folder has no gone"),
        ("of_this_folder:number", "is no function"),
        ("broken_of_this_folder:make", "cannot be imported: ZeroDivisionError"),
        ("no_such_package.data:make", "there is no module no_such_package; install it"),
    ):
        with pytest.raises(DatasetError, match=message):
            load(source)


def test_what_looks_like_a_function() -> None:
    assert all(map(is_factory, ("a:b", "pack.data:make", "pack.data:Kind.make")))
    for source in ("fashion-mini", "a", "./a:b", "/tmp/a:b", "a:b:c", "a.b", ":b", "a:", "C:\\images"):
        assert not is_factory(source)
    assert is_folder("./cifar10")
    assert not is_folder("cifar10")


@pytest.mark.parametrize("divided", [True, False])
def test_images_beyond_the_limit_are_stored_and_are_the_same(give: Give, tmp_path: Path, divided: bool) -> None:
    content = [(RNG.integers(0, 256, (6, 5, 3), np.uint8), ("c", "a", "b")[n % 3]) for n in range(30)]
    reads: list[int] = []

    class Counted(Mapped):
        def __getitem__(self, index: int) -> object:
            reads.append(index)
            return self.content[index]

    def made(pairs: list[tuple[Any, str]]) -> object:
        return {"train": Counted(pairs[:20]), "test": Counted(pairs[20:])} if divided else Counted(pairs)

    inside = load(give(made(content)), (4, 4))
    told: list[str] = []

    def stored(pairs: list[tuple[Any, str]], cache: str = str(tmp_path)) -> DataBundle:
        reads.clear()
        return load_data(give(made(pairs)), resolution=(4, 4), memory=100, image_cache=cache, log=told.append)

    outside = stored(content)
    assert isinstance(outside.train, StreamedDataset)
    assert (outside.digest, outside.class_names, outside.drawn_test) == (
        inside.digest,
        inside.class_names,
        inside.drawn_test,
    )
    assert (outside.mean, outside.std) == (inside.mean, inside.std)
    for name, part in inside.parts.items():
        assert torch.equal(part.images, outside.parts[name].images)
        assert torch.equal(part.labels, outside.parts[name].labels)
    assert "take 1 kB, and the limit of memory is 1 kB" in told[0]
    # All 30 are in the sample, and are read once to be compared; another image or label makes another store.
    stored(content)
    assert len(reads) == 31
    other = [(1 - content[0][0], content[0][1]), *content[1:]]
    assert stored(other).digest != outside.digest
    assert len(reads) == 61
    assert stored([(content[0][0], "b"), *content[1:]]).digest != outside.digest
    with pytest.raises(DatasetError, match="they must be stored, and there is no folder"):
        stored(content, "off")


def test_items_that_come_one_after_the_other_are_held_in_memory(give: Give, tmp_path: Path) -> None:
    found = load_data(
        give(iter(items(lambda pixels: pixels))), memory=1, image_cache=str(tmp_path), log=lambda _: None
    )
    assert not isinstance(found.train, StreamedDataset)
