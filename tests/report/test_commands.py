"""Which options a training is repeated with."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

from cars_hw.config.presets import PRESETS
from cars_hw.config.recipes import RECIPES
from cars_hw.config.training import Recipe
from cars_hw.report.commands import recipe_options

QUICK = PRESETS["quick"].recipe


def written(recipe: Recipe) -> dict[str, Any]:
    """As it comes out of a run's files."""
    return json.loads(json.dumps(asdict(recipe)))


def test_the_run_s_own_recipe_needs_no_option() -> None:
    assert recipe_options(written(QUICK), written(QUICK)) == ([], [])


def test_what_options_changed_they_change_again() -> None:
    changed = replace(QUICK, epochs=4, ema=0.99, hold_out=0.1, precision="bf16")
    options, other = recipe_options(written(changed), written(QUICK))
    assert options == ["--epochs", "4", "--ema", "0.99", "--hold-out", "0.1", "--precision", "bf16"]
    assert other == []


def test_a_published_recipe_is_called_by_its_name() -> None:
    options, other = recipe_options(written(replace(RECIPES["imagenet-cars"], batch_size=64)), written(QUICK))
    assert options == ["--recipe", "imagenet-cars", "--batch-size", "64"]
    assert other == []


def test_what_no_option_sets_is_named() -> None:
    options, other = recipe_options(written(replace(QUICK, cutout=7)), written(QUICK))
    assert options == []
    assert other == ["cutout = 7"]


def test_runs_from_before_a_setting_was_known_had_its_default() -> None:
    old = {name: value for name, value in written(QUICK).items() if name not in ("ema", "schedule", "precision")}
    assert recipe_options(written(replace(QUICK, epochs=2)), old) == (["--epochs", "2"], [])
    assert recipe_options(old, written(QUICK)) == ([], [])
