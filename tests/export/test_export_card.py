"""The card: it round-trips, and whatever is wrong with one is said in a typed error."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cars_hw.config.checksummed import checksum
from cars_hw.config.codec import structure, unstructure
from cars_hw.config.recipes import RECIPES
from cars_hw.errors import InputError
from cars_hw.export.card import CARD as CARD_FORMAT
from cars_hw.export.card import Augmentations, CardLatency, ModelCard, Preprocessing, card_path
from cars_hw.space.network_spec import NETWORKS
from cars_hw.space.zoo import zoo

CARD = ModelCard(
    genotype=zoo()["CARS_A"].genotype,
    network=NETWORKS["quick"],
    preprocessing=Preprocessing.of(mean=(0.25,), std=(0.5,), resolution=(28, 28)),
    class_names=tuple("abcdefghij"),
    parity=1e-7,
    versions={"torch": "2.14.0"},
    digest=f"sha256:{'0' * 64}",
    accuracy=0.5,
    test_images=1000,
    latencies=(
        CardLatency("ort", 1, "quiet", predicted_ms=2.0, bound_ms=2.5, level=0.95, measured_ms=2.1),
        CardLatency("ort", 2, "quiet", measured_ms=1.2),
    ),
    augmentations=Augmentations(mirror=True, crop=True, cutout=4, colour_jitter=0.0),
)


def test_a_card_round_trips(tmp_path: Path) -> None:
    path = card_path(tmp_path / "net.onnx")
    CARD.write(path)
    assert path.name == "net.onnx.json"
    assert ModelCard.read(path) == CARD
    assert (
        structure(unstructure(replace(CARD, precision="int8", int8="symmetric", output="probabilities")), ModelCard)
        != CARD
    )


def test_a_latency_takes_the_place_of_that_for_the_same_conditions() -> None:
    again = CardLatency("ort", 2, "quiet", measured_ms=1.3)
    assert CARD.with_latency(again).latencies == (CARD.latencies[0], again)
    usual = CardLatency("ort", 2, "usual", measured_ms=1.9)
    assert CARD.with_latency(usual).latencies == (*CARD.latencies, usual)


def test_the_augmentations_are_those_of_the_recipe() -> None:
    recipe = RECIPES["imagenet-cars"]
    assert Augmentations.of(recipe) == Augmentations(True, True, recipe.cutout, recipe.colour_jitter)
    plain = replace(recipe, crop_scale=0.0, crop_padding=0, cutout=0, colour_jitter=0.0, mirror=False)
    assert Augmentations.of(plain) == Augmentations(False, False, 0, 0.0)


def test_a_card_says_how_to_feed_the_model() -> None:
    steps = unstructure(CARD)["preprocessing"]
    conversions = steps["decoding"].pop("conversions")
    assert steps == {
        "decoding": {"library": "Pillow", "frame": "first", "orientation": "exif"},
        "resizing": {"filter": "bilinear", "antialias": True, "keep_aspect": False, "crop": "none"},
        "scale": 1 / 255,
        "mean": [0.25],
        "std": [0.5],
        "formula": "(pixel * scale - mean) / std",
        "layout": "NCHW",
        "resolution": [28, 28],
        "channels": 1,
        "colours": "L",
    }
    assert conversions["I;16"] == ["high byte"]
    assert conversions["P"] == ["RGBA", "RGB", "L"]
    in_colour = Preprocessing.of((0.1,) * 3, (0.2,) * 3, (8, 8))
    assert in_colour.colours == "RGB"
    assert in_colour.decoding is not None
    assert in_colour.decoding.conversions["I;16"] == ("high byte", "RGB")
    assert Preprocessing.of((0.1,) * 4, (0.2,) * 4, (8, 8)).decoding is None


BAD: list[tuple[tuple[str | int, ...], Any, type[InputError], str]] = [
    (("genotype",), {"normal": []}, InputError, "genotype: the normal cell needs 8 pairs"),
    (("network", "layers"), 1, InputError, "network.layers must be at least 3, not 1"),
    (("network", "layers"), None, InputError, "network.layers must be a whole number, not None"),
    (("network",), [], InputError, r"network must be an object, not \[\]"),
    (("precision",), "fp16", InputError, "precision"),
    (("precision",), [], InputError, "precision"),
    (("precision",), "int8", InputError, "int8 must be asymmetric or symmetric for a model of int8"),
    (("int8",), "symmetric", InputError, "null for others, not symmetric"),
    (("int8",), 8, InputError, "int8"),
    (("class_names",), ["a"], InputError, "1 class names for 10"),
    (("class_names",), "abcdefghij", InputError, "class_names must be a list, not 'abcdefghij'"),
    (("class_names",), list(range(10)), InputError, r"class_names\[0\] must be a text, not 0"),
    (("versions",), {"torch": 2}, InputError, "versions"),
    (("accuracy",), 90, InputError, "fraction"),
    (("accuracy",), float("nan"), InputError, "NaN is not a number"),
    (("accuracy",), True, InputError, "accuracy must be a number"),
    (("parity",), None, InputError, "parity must be a number"),
    (("parity",), "small", InputError, "parity must be a number"),
    (("parity",), -1, InputError, "parity must be finite and not negative"),
    (("test_images",), 0, InputError, "test_images must be at least 1, not 0"),
    (("output",), "softmax", InputError, "output must be one of logits, probabilities"),
    (("latencies",), None, InputError, "latencies must be a list"),
    (("latencies", 0, "threads"), 0, InputError, r"latencies\[0\].threads must be at least 1, not 0"),
    (("latencies", 0, "state"), "calm", InputError, r"latencies\[0\]"),
    (("latencies", 0, "level"), 1, InputError, r"latencies\[0\].level must be below 1"),
    (("latencies", 0, "bound_ms"), float("inf"), InputError, "Infinity is not a number"),
    (("latencies", 0, "measured_ms"), 10**400, InputError, "measured_ms must be a finite number"),
    (("latencies", 1, "threads"), 1, InputError, "two entries for one device"),
    (("augmentations", "mirror"), 1, InputError, "augmentations.mirror must be true or false"),
    (("preprocessing", "formula"), "pixel / 255", InputError, "formula must be"),
    (("preprocessing", "decoding", "library"), "OpenCV", InputError, "library must be one of Pillow"),
    (("preprocessing", "decoding", "frame"), "last", InputError, "frame must be one of first"),
    (("preprocessing", "decoding", "orientation"), "up", InputError, "orientation must be one of exif, stored"),
    (("preprocessing", "decoding", "conversions"), {}, InputError, "all end in L, or all in RGB"),
    (("preprocessing", "decoding", "conversions", "CMYK"), ["BGR"], InputError, "'BGR' is unknown"),
    (("preprocessing", "decoding", "conversions", "CMYK"), ["RGB"], InputError, "all end in L, or all in RGB"),
    (("preprocessing", "decoding", "conversions", "L"), ["high byte"], InputError, "first step of 16-bit modes"),
    (("preprocessing", "decoding", "conversions", "I;16"), ["L"], InputError, "first step of 16-bit modes"),
    (("preprocessing", "resizing", "filter"), "area", InputError, "filter must be one of nearest"),
    (
        ("preprocessing", "resizing", "antialias"),
        False,
        InputError,
        "antialias must be True for the filter bilinear",
    ),
    (("preprocessing", "resizing", "keep_aspect"), True, InputError, "keep_aspect must be False"),
    (("preprocessing", "resizing", "crop"), "centre", InputError, "crop must be one of none"),
    (("preprocessing",), None, InputError, "preprocessing must be an object"),
    (("preprocessing", "mean"), 0.25, InputError, "preprocessing.mean must be a list, not 0.25"),
    (("preprocessing", "mean"), [0.25, 0.25], InputError, "one value a channel"),
    (("preprocessing", "mean"), [float("nan")], InputError, "NaN is not a number"),
    (("preprocessing", "std"), [0], InputError, "above zero"),
    (("preprocessing", "layout"), "CHWN", InputError, "layout"),
    (
        ("preprocessing", "resolution"),
        [28, "28"],
        InputError,
        r"preprocessing.resolution\[1\] must be a whole number, not '28'",
    ),
    (("preprocessing", "resolution"), [32, 32], InputError, "32x32 pixels"),
    (("preprocessing", "channels"), 3, InputError, "preprocessing.channels must be 1, not 3"),
]


@pytest.mark.parametrize(("keys", "value", "error", "message"), BAD)
def test_a_bad_field_is_a_typed_error_that_names_the_file(
    keys: tuple[str | int, ...], value: object, error: type[InputError], message: str, tmp_path: Path
) -> None:
    card = copy.deepcopy(unstructure(CARD))
    holder = card
    for key in keys[:-1]:
        holder = holder[key]
    holder[keys[-1]] = value
    path = tmp_path / "net.onnx.json"
    content = {"format": CARD_FORMAT.name, "version": CARD_FORMAT.version, **card}
    try:
        content["checksum"] = checksum(content)
    except ValueError:
        content["checksum"] = "a number that JSON has no text for"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(error, match=message) as raised:
        ModelCard.read(path)
    assert type(raised.value) is error
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("name", list(unstructure(CARD)))
def test_no_field_may_be_missing(name: str) -> None:
    card = unstructure(CARD)
    del card[name]
    with pytest.raises(InputError, match=f"^{name} is missing$"):
        structure(card, ModelCard)


def test_no_field_is_ignored() -> None:
    with pytest.raises(InputError, match=r"^speed is unknown$"):
        structure({**unstructure(CARD), "speed": 1}, ModelCard)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, "\x00"])
def test_what_is_no_card_is_an_input_error(text: str, tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"card\.json"):
        ModelCard.read(path)


def test_a_file_that_cannot_be_read_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        ModelCard.read(tmp_path / "missing.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not JSON"):
        ModelCard.read(tmp_path / "bytes.json")
