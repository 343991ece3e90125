"""Completion of options and arguments; the shell runs ``cars-hw`` for it, so nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import click
from click.shell_completion import CompletionItem

from cars_hw.config.data import DATA_SETS
from cars_hw.config.measurement import QUIET, SUSTAINED, USUAL
from cars_hw.export.formats import format_names

DEVICES: Final = ("ort", "litert", "android", "fake", "ssh")
REFERENCES: Final = ("MobileNetV2", "MNASNet", "ShuffleNetV2", "ResNet-18")
"""Names that are known without importing what they stand for; a test compares them with it."""

Completion = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _completion(names_for: Callable[[str], Iterable[str]], paths: str | None = None) -> Completion:
    """Return the completion by the names for what is written, and by ``paths``: ``file`` or ``dir``."""

    def complete(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        found = [CompletionItem(name) for name in names_for(incomplete) if name.startswith(incomplete)]
        # bash forgets the names before a path.
        return [CompletionItem(incomplete, type=paths), *found] if paths is not None else found

    return complete


def _published(_incomplete: str) -> Iterable[str]:
    from cars_hw.space.zoo import whole_zoo

    return whole_zoo()


def _formats(incomplete: str) -> Iterable[str]:
    """Return the formats behind those that are written already, with a comma between them."""
    before, comma, _ = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in format_names() if name not in before.split(",")]


complete_states = _completion(lambda _: (QUIET, USUAL, SUSTAINED))
complete_devices = _completion(lambda _: DEVICES)
complete_genotypes = _completion(_published, "file")
complete_references = _completion(lambda _: [*REFERENCES, *_published("")])
complete_formats = _completion(_formats)
complete_data = _completion(lambda _: DATA_SETS, "dir")
