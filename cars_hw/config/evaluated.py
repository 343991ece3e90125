"""How accuracies were evaluated, in words: by which classifier, or after which training."""

from __future__ import annotations

from typing import Final

from cars_hw.config.training import EvaluatedClassifier

CLASSIFIERS: Final[dict[EvaluatedClassifier, str]] = {
    "shared": "the shared classifier",
    "probe": "a linear probe for each network",
}
"""What classifies the images when architectures are evaluated under shared weights."""


def shared_adjective(classifier: EvaluatedClassifier) -> str:
    """Return the word before an accuracy under shared weights: ``shared``, ``linear-probe``."""
    return "linear-probe" if classifier == "probe" else "shared"


def shared_words(classifier: EvaluatedClassifier) -> str:
    """Return how an accuracy under shared weights was evaluated, for a line or a plot."""
    return "under shared weights with a linear probe" if classifier == "probe" else "under shared weights"


def training_words(epochs: int, classifier: EvaluatedClassifier) -> str:
    """Return the training behind an accuracy: ``epochs`` in the final stage, or with 0 the shared weights.

    Under shared weights, ``classifier`` is named.
    """
    if not epochs:
        return f"under shared weights with {CLASSIFIERS[classifier]}"
    return f"after {epochs} {'epoch' if epochs == 1 else 'epochs'} in the final stage"
