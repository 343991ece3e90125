"""The recipes for training a chosen network by name: the published ones, and those of plug-ins."""

from __future__ import annotations

from typing import Final

from cars_hw.config.training import Recipe
from cars_hw.errors import InputError
from cars_hw.plugins import IMPORTABLE, load_plugin, plugin_names

GROUP: Final = "cars_hw.recipes"
"""The group of the entry points of packages with recipes of their own."""

RECIPES: Final[dict[str, Recipe]] = {
    # DARTS (Liu et al., 2019), as in cnn/train.py of its code; CARS follows it on CIFAR-10.
    "cifar10-darts": Recipe(
        epochs=600,
        batch_size=96,
        learning_rate=0.025,
        momentum=0.9,
        weight_decay=3e-4,
        gradient_clip=5.0,
        auxiliary=0.4,
        drop_path=0.2,
        crop_padding=4,
        cutout=16,
    ),
    # CARS (Yang et al., 2020); what it leaves open (auxiliary head, clipping, how images are varied) is from
    # cnn/train_imagenet.py of DARTS.
    "imagenet-cars": Recipe(
        epochs=250,
        batch_size=640,
        learning_rate=0.5,
        momentum=0.9,
        weight_decay=3e-5,
        gradient_clip=5.0,
        warmup_epochs=5,
        schedule="linear",
        auxiliary=0.4,
        label_smoothing=0.1,
        crop_padding=0,
        crop_scale=0.08,
        colour_jitter=0.4,
    ),
}


def recipe_names() -> list[str]:
    """Return the names of all recipes: the published ones, and those of installed plug-ins."""
    return [*RECIPES, *(name for name in plugin_names(GROUP) if name not in RECIPES)]


def named_recipe(name: str) -> Recipe:
    """Return the recipe called ``name``, or the one that ``package.module:NAME`` says how to import.

    Raises:
        InputError: there is none; the message lists those that are. Or it is no Recipe.
    """
    if name in RECIPES:
        return RECIPES[name]
    if not IMPORTABLE.fullmatch(name) and name not in plugin_names(GROUP):
        raise InputError(f"unknown recipe '{name}'; known: {', '.join(recipe_names())}, and package.module:NAME")
    found = load_plugin(GROUP, name)
    if not isinstance(found, Recipe):
        raise InputError(f"the recipe {name} is a {type(found).__name__}, not a cars_hw.Recipe")
    return found
