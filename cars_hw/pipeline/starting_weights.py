"""Weights that a training starts from: those of a network of the same genotype, trained before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cars_hw.errors import InputError
from cars_hw.export.model import AUXILIARY, Model, load_model
from cars_hw.nn.network import Network
from cars_hw.space.architecture import Architecture

CLASSIFIER = "classifier."
"""How the names of the classifier's weights begin."""


@dataclass(frozen=True)
class StartingWeights:
    """The model in the file ``path``."""

    path: Path
    model: Model

    @classmethod
    def read(cls, path: Path) -> StartingWeights:
        """Return the model in ``path``, see :func:`cars_hw.export.model.load_model`.

        Raises:
            InputError: there is none, or it cannot be read.
        """
        return cls(path, load_model(path))

    @property
    def digest(self) -> str:
        """The digest of the weights."""
        return self.model.card.digest

    def require(self, name: str, architecture: Architecture) -> None:
        """Check that the weights are of the network ``name``, apart from its classes and its resolution.

        Raises:
            InputError: they are of another genotype, of another size, or for other channels.
        """
        genotype, spec = architecture
        if self.model.genotype.key() != genotype.key():
            raise InputError(
                f"{self.path} has the weights of another genotype than {name}; give weights of this genotype, or "
                "leave the genotype out to train that of the weights"
            )
        theirs = self.model.spec
        if theirs.in_channels != spec.in_channels:
            raise InputError(
                f"{self.path} is for images of {theirs.in_channels} channels; those of {name} have "
                f"{spec.in_channels}"
            )
        if replace(theirs, classes=spec.classes, resolution=spec.resolution) != spec:
            raise InputError(
                f"{self.path} has the weights of a network of another size ({theirs.describe()}) than {name} "
                f"({spec.describe()})"
            )

    def give(self, network: Network, class_names: Sequence[str]) -> bool:
        """Copy the weights to ``network``; return whether the classifier is among them.

        It is not if the classes are others: then it keeps its weights, as an auxiliary head does.
        """
        same = tuple(class_names) == self.model.card.class_names
        weights = {
            name: value
            for name, value in self.model.state_dict().items()
            if same or not name.startswith(CLASSIFIER)
        }
        found = network.load_state_dict(weights, strict=False)
        missing = [name for name in found.missing_keys if not name.startswith((AUXILIARY, CLASSIFIER))]
        assert not missing and not found.unexpected_keys, (missing, found.unexpected_keys)
        return same
