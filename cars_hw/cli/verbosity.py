"""How much a command tells: ``--quiet``, ``--verbose`` and ``--strict``, and what they decide."""

from __future__ import annotations

import logging
import sys
from typing import Any, Final

import click

from cars_hw.formatting import printable

EVERYWHERE: Final = ("verbose", "quiet")
"""The options that every command takes."""

VERBOSITY: Final = "cars_hw.verbosity"
STRICT: Final = "cars_hw.strict"
WARNINGS: Final = "cars_hw.quality_warnings"
"""Where the context of the command line keeps them; all commands below ``cars-hw`` share it."""


def _meta() -> dict[str, Any]:
    context = click.get_current_context(silent=True)
    return {} if context is None else context.meta


def is_quiet() -> bool:
    """Tell whether only results and errors are printed."""
    return _meta().get(VERBOSITY) == "quiet"


def is_verbose() -> bool:
    """Tell whether debug lines and tracebacks are printed."""
    return _meta().get(VERBOSITY) == "verbose"


def note(text: str) -> None:
    """Print ``text``, which is neither a result nor an error, on standard error unless ``--quiet`` is given."""
    if not is_quiet():
        click.echo(printable(text, lines=True), err=True)


def warn_of_quality(text: str) -> None:
    """Warn that a measurement is unreliable, once; with ``--strict`` the command ends with exit code 3."""
    given = _meta().setdefault(WARNINGS, [])
    if text not in given:
        given.append(text)
        note(f"Warning: {text}")


def count_as_unreliable(text: str) -> None:
    """Let the command end with exit code 3 with ``--strict``; ``text``, the reason, has been printed already."""
    _meta().setdefault(WARNINGS, []).append(text)


def strict_violations() -> list[str]:
    """Return the quality warnings of this command if ``--strict`` is given, otherwise nothing."""
    return list(_meta().get(WARNINGS, ())) if _meta().get(STRICT) else []


def _set_verbosity(context: click.Context, parameter: click.Parameter, given: bool) -> None:
    if not given:
        return
    wanted = parameter.name
    if context.meta.setdefault(VERBOSITY, wanted) != wanted:
        raise click.UsageError("--quiet and --verbose exclude each other", context)
    if wanted == "verbose":
        _log_to_standard_error(context.find_root())


def _log_to_standard_error(context: click.Context) -> None:
    logger = logging.getLogger("cars_hw")
    if logger.handlers:
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.DEBUG)

    def restore() -> None:
        logger.removeHandler(handler)
        logger.setLevel(level)

    context.call_on_close(restore)


def _set_strict(context: click.Context, _parameter: click.Parameter, given: bool) -> None:
    if given:
        context.meta[STRICT] = True


def verbosity_options() -> list[click.Option]:
    """Return ``--verbose`` and ``--quiet``, which the group and every command take."""
    return [
        click.Option(
            ["-v", "--verbose"],
            is_flag=True,
            expose_value=False,
            callback=_set_verbosity,
            help="Print debug lines on standard error, and a traceback with an error.",
        ),
        click.Option(
            ["-q", "--quiet"],
            is_flag=True,
            expose_value=False,
            callback=_set_verbosity,
            help="Print results and errors only: no progress, no warnings.",
        ),
    ]


strict_option = click.option(
    "--strict",
    is_flag=True,
    expose_value=False,
    callback=_set_strict,
    help="End with exit code 3 if a measurement is unreliable; a warning says why.",
)
