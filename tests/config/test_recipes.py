"""The published recipes, number by number, and the rates that they come to."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from cars_hw.config.presets import PRESETS
from cars_hw.config.recipes import RECIPES, named_recipe
from cars_hw.config.training import Recipe
from cars_hw.errors import InputError
from cars_hw.training.precision import resolve_precision


def test_darts_on_cifar_10() -> None:
    recipe = named_recipe("cifar10-darts")
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate, recipe.schedule) == (600, 96, 0.025, "cosine")
    assert (recipe.momentum, recipe.weight_decay, recipe.gradient_clip) == (0.9, 3e-4, 5)
    assert (recipe.auxiliary, recipe.drop_path, recipe.cutout, recipe.crop_padding) == (0.4, 0.2, 16, 4)
    assert (recipe.label_smoothing, recipe.warmup_epochs, recipe.crop_scale, recipe.colour_jitter) == (0, 0, 0, 0)
    assert PRESETS["paper"].recipe == PRESETS["cifar"].recipe == recipe


def test_the_paper_on_imagenet() -> None:
    recipe = named_recipe("imagenet-cars")
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate, recipe.schedule) == (250, 640, 0.5, "linear")
    assert (recipe.momentum, recipe.weight_decay, recipe.label_smoothing) == (0.9, 3e-5, 0.1)
    assert (recipe.warmup_epochs, recipe.gradient_clip, recipe.auxiliary, recipe.drop_path) == (5, 5, 0.4, 0)
    assert (recipe.crop_scale, recipe.colour_jitter, recipe.crop_padding, recipe.cutout) == (0.08, 0.4, 0, 0)


def test_nothing_is_averaged_or_held_out_unless_asked_for() -> None:
    assert all((recipe.ema, recipe.hold_out, recipe.precision) == (0, 0, "auto") for recipe in RECIPES.values())


@pytest.mark.parametrize(
    ("name", "epoch", "rate"),
    [
        ("cifar10-darts", 0, 0.025),
        ("cifar10-darts", 150, 0.025 * (1 + math.sqrt(0.5)) / 2),
        ("cifar10-darts", 300, 0.0125),
        ("cifar10-darts", 600, 0),
        ("imagenet-cars", 2.5, 0.25),
        ("imagenet-cars", 5, 0.49),
        ("imagenet-cars", 125, 0.25),
        ("imagenet-cars", 249, 0.002),
        ("imagenet-cars", 250, 0),
    ],
)
def test_the_rate_of_a_recipe(name: str, epoch: float, rate: float) -> None:
    assert RECIPES[name].rate(epoch) == pytest.approx(rate, rel=1e-3, abs=1e-12)


def test_an_unknown_recipe_names_those_that_are() -> None:
    with pytest.raises(InputError, match="unknown recipe 'sota'; known: cifar10-darts, imagenet-cars"):
        named_recipe("sota")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, not 0"),
        ({"ema": 1.0}, "ema must be below 1, not 1.0"),
        ({"hold_out": -0.1}, "hold_out must be at least 0, not -0.1"),
        ({"schedule": "stairs"}, "schedule must be one of cosine, linear, not 'stairs'"),
    ],
)
def test_what_no_training_can_be_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Recipe(**{"epochs": 1, **wrong})


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16"), (False, "fp16")])
def test_a_gpu_trains_in_what_it_computes_in(native: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native or including_emulation)
    assert resolve_precision("auto", "cuda") == expected
    assert resolve_precision("float32", "cuda") == "float32"


def test_a_cpu_trains_in_float32_unless_asked_otherwise() -> None:
    assert resolve_precision("auto", "cpu") == "float32"
    assert resolve_precision("bf16", torch.device("cpu")) == "bf16"
    with pytest.raises(InputError, match="fp16 is for GPUs"):
        resolve_precision("fp16", "cpu")
    with pytest.raises(InputError, match="unknown precision 'int4'"):
        resolve_precision("int4", "cpu")  # type: ignore[arg-type]
