"""Presets: settings of a search and of the training after it that belong together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from cars_hw.config.recipes import RECIPES
from cars_hw.config.search import EvolutionSettings, FinalSettings, VariationRates
from cars_hw.config.training import Recipe, SharedTraining
from cars_hw.errors import InputError


@dataclass(frozen=True)
class Preset:
    """A named set of settings; ``summary`` describes its purpose in one line.

    In a search of one size, the SuperNet has ``supernet_channels`` and ``supernet_layers``; None means those of the
    final network. In a search over sizes it has the largest size.

    Raises:
        InputError: two settings contradict each other.
    """

    summary: str
    recipe: Recipe
    supernet_channels: int | None = None
    supernet_layers: int | None = None
    evolution: EvolutionSettings = field(default_factory=EvolutionSettings)
    training: SharedTraining = field(default_factory=SharedTraining)
    final: FinalSettings = field(default_factory=FinalSettings)

    def __post_init__(self) -> None:
        if not self.training.trains:
            self._require_nothing_of_training()
        if self.training.classifier == "shared":
            return
        for name, value, plain in (
            ("evolution.objective", self.evolution.objective, "accuracy"),
            ("training.class_weights", self.training.class_weights, "none"),
        ):
            if value != plain:
                raise InputError(
                    f"{name} = {value!r} needs training.classifier = 'shared': a probe has no loss, and does not "
                    "weigh classes"
                )

    def _require_nothing_of_training(self) -> None:
        """Check that no setting is of the training of shared weights, which does not take place.

        Raises:
            InputError: one is.
        """
        plain, evolution = SharedTraining(), self.evolution
        for name, value, allowed in (
            ("evolution.protection", evolution.protection, ("size", "none")),
            ("evolution.draws", evolution.draws, ("uniform",)),
            ("evolution.widening", evolution.widening, ("none",)),
            ("training.share", self.training.share, (plain.share,)),
            ("training.average", self.training.average, (plain.average,)),
            ("training.size_sampling", self.training.size_sampling, (plain.size_sampling,)),
        ):
            if value not in allowed:
                raise InputError(
                    f"{name} = {value!r} needs shared weights that are trained, and with training.classifier = "
                    f"{self.training.classifier!r} none are; it can be {' or '.join(map(repr, allowed))}"
                )


_FEW_RANDOM: Final = VariationRates(mutation=0.45, crossover=0.45, random=0.1)

_A_THIRD: Final = FinalSettings(share=1 / 3)

PRESETS: Final[dict[str, Preset]] = {
    "quick": Preset(
        summary="minutes on two CPU cores, for small images and small networks",
        evolution=EvolutionSettings(
            population=16,
            epochs=16,
            warmup_epochs=5,
            epochs_per_generation=1,
            protection="size",
            rates=_FEW_RANDOM,
        ),
        training=SharedTraining(
            batch_size=32,
            learning_rate=0.05,
            learning_rate_min=0.002,
            # Small, centred images lose more by being shifted than so short a training gains.
            crop_padding=0,
            validation_fraction=0.2,
            evaluation_images=400,
            threads=1,
        ),
        recipe=Recipe(epochs=9, batch_size=32, learning_rate=0.05, crop_padding=0),
    ),
    "cifar": Preset(
        summary="about a fifth of the paper's search, for CIFAR-10 and the like, on a GPU",
        supernet_channels=16,
        supernet_layers=8,
        evolution=EvolutionSettings(
            population=64,
            epochs=110,
            warmup_epochs=10,
            epochs_per_generation=5,
            protection="size",
            rates=_FEW_RANDOM,
        ),
        training=SharedTraining(evaluation_images=5000, evaluation_batch=1000),
        recipe=RECIPES["cifar10-darts"],
        final=_A_THIRD,
    ),
    "paper": Preset(
        summary="the paper's search: population 128, 50 epochs of warm-up, 45 generations of 10 epochs",
        supernet_channels=16,
        supernet_layers=8,
        # The front is evaluated on all 25,000 at the end.
        training=SharedTraining(evaluation_images=5000, evaluation_batch=1000),
        recipe=RECIPES["cifar10-darts"],
        final=_A_THIRD,
    ),
}
"""``paper`` has the paper's protection and rates; the others the protection whose trained fronts were best.

The paper has no final stage; ``--final 0`` leaves it out. ``quick`` has none, because the time of such a search
only pays for one epoch of ten networks.
"""


OF_A_STEP: Final = (
    "batch_size",
    "architectures",
    "learning_rate",
    "learning_rate_min",
    "momentum",
    "weight_decay",
    "gradient_clip",
    "cutout",
    "threads",
)
"""The settings of a training step of the shared weights.

Those of cropping and mirroring are not among them: they are given for the training of the front as well.
"""


def require_steps(preset: Preset) -> None:
    """Check that nothing was asked of the steps of a training that does not take place.

    Every search has values of these settings by its preset. A value that no preset has was asked for.

    Raises:
        InputError: something was.
    """
    training, plain = preset.training, SharedTraining()
    if training.trains:
        return
    usual = [plain, *(one.training for one in PRESETS.values())]
    for name in OF_A_STEP:
        if getattr(training, name) not in [getattr(one, name) for one in usual]:
            raise InputError(
                f"training.{name} = {getattr(training, name)!r} has no effect: with training.classifier = "
                f"{training.classifier!r} no shared weights are trained; leave it out"
            )
    if preset.evolution.uniform_draws:
        raise InputError(
            f"evolution.uniform_draws = {preset.evolution.uniform_draws!r} has no effect: with training.classifier "
            f"= {training.classifier!r} no architectures are drawn for a training; leave it out"
        )


def named_preset(name: str) -> Preset:
    """Return the preset called ``name``.

    Raises:
        InputError: there is none; the message lists those that are.
    """
    if name not in PRESETS:
        raise InputError(f"unknown preset '{name}'; known: {', '.join(PRESETS)}")
    return PRESETS[name]
