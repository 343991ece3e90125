import json
from dataclasses import replace
from typing import Any

import pytest

from cars_hw.config.codec import structure, unstructure
from cars_hw.errors import InputError, SpecError
from cars_hw.space.network_spec import NETWORKS, NetworkSpec, named_network
from cars_hw.space.shape import Shape

SPEC = NetworkSpec(channels=16, layers=8, resolution=(32, 32))


def test_the_named_networks_are_the_papers() -> None:
    assert NETWORKS["cifar"] == NetworkSpec(36, 20, (32, 32), 3, 10, "cifar")
    assert NETWORKS["imagenet"] == NetworkSpec(48, 14, (224, 224), 3, 1000, "imagenet")
    assert named_network("quick") is NETWORKS["quick"]
    with pytest.raises(SpecError, match="unknown network 'large'; known: cifar, imagenet, quick, tiny"):
        named_network("large")


@pytest.mark.parametrize(
    ("layers", "reductions"), [(3, (1, 2)), (4, (1, 2)), (5, (1, 3)), (8, (2, 5)), (14, (4, 9)), (20, (6, 13))]
)
def test_reductions_stand_at_a_third_and_two_thirds(layers: int, reductions: tuple[int, int]) -> None:
    spec = SPEC.with_changes(layers=layers)
    assert spec.reductions == reductions
    assert tuple(layout.position for layout in spec.cells() if layout.reduction) == reductions


def test_depths_say_how_many_cells_each_stage_has() -> None:
    # 2 + 4 + 3 cells: the second stage begins with cell 2, the third with cell 6.
    spec = replace(SPEC, layers=9, depths=(2, 4, 3))
    assert spec.stages == (2, 4, 3)
    assert spec.reductions == (2, 6)
    assert [layout.output.channels for layout in spec.cells()] == [16] * 2 + [32] * 4 + [64] * 3
    assert spec.describe() == "16 channels, 9 cells (2+4+3), 32x32x3, 10 classes, cifar stem"
    assert structure(unstructure(spec), NetworkSpec) == spec
    # Another number of cells has its reductions at thirds.
    assert spec.with_changes(layers=8) == SPEC
    assert spec.with_changes(channels=8).stages == (2, 4, 3)


def test_depths_with_reductions_at_thirds_are_the_same_network() -> None:
    spec = replace(SPEC, depths=(2, 3, 3))
    assert spec == SPEC
    assert hash(spec) == hash(SPEC)
    assert spec.stages == SPEC.stages == (2, 3, 3)


@pytest.mark.parametrize("depths", [(2, 3, 4), (0, 4, 4), (4, 4), (-1, 5, 4)])
def test_depths_that_are_not_the_cells_of_three_stages_are_refused(depths: tuple[int, ...]) -> None:
    with pytest.raises(SpecError, match="depths must be the cells of 3 stages, 8 in all, not"):
        replace(SPEC, depths=depths)


def test_cifar_layout_worked_out_by_hand() -> None:
    first, _, reduction, after, two_after, *_, last = SPEC.cells()
    assert first.inputs == (Shape(48, 32, 32), Shape(48, 32, 32))
    assert first.inner == first.output == Shape(16, 32, 32)
    assert not first.previous_reduction
    assert (reduction.reduction, reduction.previous_reduction) == (True, False)
    assert (reduction.inner, reduction.output) == (Shape(32, 32, 32), Shape(32, 16, 16))
    assert after.previous_reduction
    assert after.inputs == (Shape(64, 32, 32), Shape(128, 16, 16))
    assert after.inner == Shape(32, 16, 16)
    assert not two_after.previous_reduction
    assert last.concatenated == Shape(256, 8, 8)


def test_imagenet_layout_worked_out_by_hand() -> None:
    spec = NETWORKS["imagenet"]
    assert spec.input_shape == Shape(3, 224, 224)
    assert spec.stem_shapes() == (Shape(48, 56, 56), Shape(48, 28, 28))
    first, *_, last = spec.cells()
    assert first.previous_reduction
    assert first.inner == Shape(48, 28, 28)
    assert last.concatenated == Shape(768, 7, 7)


def test_odd_sizes_are_rounded_up() -> None:
    assert Shape(4, 7, 9).halved() == Shape(4, 4, 5)
    assert Shape(4, 1, 2).halved(8) == Shape(8, 1, 1)
    assert NetworkSpec(4, 3, (57, 71), stem="imagenet").stem_shapes() == (Shape(4, 15, 18), Shape(4, 8, 9))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 0}, "channels must be at least 1, not 0"),
        ({"channels": 15}, "channels must be even, not 15"),
        ({"in_channels": 0}, "in_channels must be at least 1, not 0"),
        ({"classes": 1}, "classes must be at least 2, not 1"),
        ({"layers": 2}, "layers must be at least 3, not 2"),
        ({"resolution": (7, 32)}, "resolution must be at least 8x8 for the cifar stem"),
    ],
)
def test_impossible_sizes_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        SPEC.with_changes(**changes)


def test_impossible_stems_are_refused() -> None:
    with pytest.raises(SpecError, match="stem must be one of cifar, imagenet, cells, not 'mobile'"):
        NetworkSpec(16, 8, (32, 32), stem="mobile")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="at least 32x32 for the imagenet stem"):
        NetworkSpec(16, 8, (31, 32), stem="imagenet")


@pytest.mark.parametrize("spec", [*NETWORKS.values(), NetworkSpec(6, 4, (15, 13), 1, 7)])
def test_json_round_trip(spec: NetworkSpec) -> None:
    again = structure(json.loads(json.dumps(unstructure(spec))), NetworkSpec)
    assert again == spec
    assert hash(again) == hash(spec)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": "16"}, "channels must be a whole number, not '16'"),
        ({"channels": 16.0}, "channels must be a whole number, not 16.0"),
        ({"layers": True}, "layers must be a whole number, not True"),
        ({"classes": None}, "classes must be a whole number, not None"),
        ({"resolution": [32, 32.5]}, r"resolution\[1\] must be a whole number, not 32.5"),
        ({"resolution": [32]}, r"resolution must be a list of 2, not \[32\]"),
        ({"resolution": 32}, "resolution must be a list, not 32"),
        ({"depth": 3}, "depth is unknown"),
        ({"stem": ["cifar"]}, "stem must be one of cifar, imagenet, cells, not"),
    ],
)
def test_mistyped_fields_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        structure({**unstructure(SPEC), **changes}, NetworkSpec)


@pytest.mark.parametrize("name", ["channels", "layers", "resolution", "in_channels", "classes", "stem"])
def test_missing_fields_are_named(name: str) -> None:
    fields = unstructure(SPEC)
    del fields[name]
    with pytest.raises(InputError, match=f"^{name} is missing$"):
        structure(fields, NetworkSpec)


@pytest.mark.parametrize("value", [None, [], "cifar", 3])
def test_what_is_no_object_is_no_network(value: object) -> None:
    with pytest.raises(InputError, match="must be an object, not "):
        structure(value, NetworkSpec)


def test_changes_leave_the_rest_alone() -> None:
    changed = NETWORKS["imagenet"].with_changes(classes=10, resolution=(64, 96))
    assert changed == NetworkSpec(48, 14, (64, 96), 3, 10, "imagenet")
    assert SPEC.with_changes() == SPEC


def test_described_in_a_line() -> None:
    assert NETWORKS["cifar"].describe() == "36 channels, 20 cells, 32x32x3, 10 classes, cifar stem"
