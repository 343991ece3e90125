"""How accuracies were evaluated, in words: by which classifier, or after which training."""

from __future__ import annotations

from typing import Final

from cars_hw.config.training import EvaluatedClassifier

CLASSIFIERS: Final[dict[EvaluatedClassifier, str]] = {
    "shared": "the shared classifier",
    "probe": "a linear probe for each network",
    "untrained-probe": "a linear probe for each network on untrained weights",
}
"""What classifies the images when architectures are evaluated in a search."""


def shared_adjective(classifier: EvaluatedClassifier) -> str:
    """Return the word before an accuracy of the search: ``shared``, ``linear-probe``, ``untrained-probe``."""
    return {"shared": "shared", "probe": "linear-probe", "untrained-probe": "untrained-probe"}[classifier]


def shared_words(classifier: EvaluatedClassifier) -> str:
    """Return how an accuracy of the search was evaluated, for a line or a plot."""
    if classifier == "untrained-probe":
        return "by a linear probe on untrained weights"
    return "under shared weights with a linear probe" if classifier == "probe" else "under shared weights"


def short_words(classifier: EvaluatedClassifier) -> str:
    """Return what evaluated an accuracy of the search in two words, for the live view."""
    return {"shared": "shared weights", "probe": "linear probe", "untrained-probe": "untrained probe"}[classifier]


def training_words(epochs: int, classifier: EvaluatedClassifier) -> str:
    """Return the training behind an accuracy: ``epochs`` in the final stage, or with 0 the weights of the search.

    Without a training of its own, ``classifier`` is named.
    """
    if not epochs and classifier == "untrained-probe":
        return f"by {CLASSIFIERS[classifier]}"
    if not epochs:
        return f"under shared weights with {CLASSIFIERS[classifier]}"
    return f"after {epochs} {'epoch' if epochs == 1 else 'epochs'} in the final stage"
