"""The argument of a command that takes a genotype or an exported model, whose card tells its network."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import click
from click.shell_completion import CompletionItem

from cars_hw.cli.options import GENOTYPE, Named, ParamType
from cars_hw.errors import InputError
from cars_hw.export.card import ModelCard
from cars_hw.space.genotype import Genotype


class GenotypeOrModel(NamedTuple):
    """A genotype and what to call it in print; ``card`` is that of the model file, None for a genotype alone."""

    name: str
    genotype: Genotype
    card: ModelCard | None


class GenotypeOrModelType(ParamType[GenotypeOrModel]):
    """A genotype by name, file or text, or a model file with its card."""

    name = "GENOTYPE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> GenotypeOrModel:  # noqa: ANN401 -- click's
        """Return the genotype that ``value`` says, or that of the model."""
        if isinstance(value, GenotypeOrModel):
            return value
        if _is_model(value):
            from cars_hw.export.card import verified_card

            # A missing or damaged file is no error of usage: the error passes, and the command ends with 1.
            path = Path(value)
            card = verified_card(path)
            return GenotypeOrModel(path.stem, card.genotype, card)
        named: Named = GENOTYPE.convert(value, param, ctx)
        return GenotypeOrModel(named.name, named.genotype, None)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the published genotypes' names, and let the shell complete files."""
        return GENOTYPE.shell_complete(ctx, param, incomplete)


GENOTYPE_OR_MODEL = GenotypeOrModelType()


def _is_model(value: str) -> bool:
    """Return whether ``value`` ends as the files of some format do."""
    if not Path(value).suffix:
        return False
    from cars_hw.export.formats import format_of_file

    try:
        format_of_file(Path(value))
    except InputError:
        return False
    return True
