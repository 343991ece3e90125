"""Names of the networks that a run is compared with, most of torchvision: families, widths, and small images."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from cars_hw.errors import InputError
from cars_hw.space.mobile import mobile_zoo

SHUFFLENETS: Final = {
    0.5: "shufflenet_v2_x0_5",
    1.0: "shufflenet_v2_x1_0",
    1.5: "shufflenet_v2_x1_5",
    2.0: "shufflenet_v2_x2_0",
}
"""The builders of torchvision for the widths of ShuffleNetV2; it has no others."""

WIDTHS: Final[dict[str, tuple[float, ...]]] = {
    "mobilenet_v2": (0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.4),
    "mobilenet_v3_small": (0.35, 0.5, 0.75, 1.0),
    "mobilenet_v3_large": (0.2, 0.35, 0.5, 0.75, 1.0),
    "shufflenet_v2": tuple(SHUFFLENETS),
    "mnasnet": (0.2, 0.35, 0.5, 0.75, 1.0, 1.3),
    "resnet18": (0.125, 0.25, 0.5, 1.0),
}
"""The networks that can have a width, and the widths in a family. Except for ShuffleNetV2, others can be named."""

FAMILIES: Final[dict[str, tuple[str, ...]]] = {
    "mobilenet_v2": ("mobilenet_v2",),
    "mobilenet_v3": ("mobilenet_v3_small", "mobilenet_v3_large"),
    "shufflenet_v2": ("shufflenet_v2",),
    "mnasnet": ("mnasnet",),
    "resnet": ("resnet18",),
}
"""The networks of each family."""

MOST: Final = 4.0
"""The largest width."""

SMALL: Final = "@small"

HALVINGS: Final = 2
"""Of the five layers that halve the resolution of an image, ``@small`` leaves out so many: 32x32 becomes 4x4."""

_FORM: Final = re.compile(rf"(?P<model>[a-z0-9_]+)(?::(?P<width>\d+(?:\.\d+)?))?(?P<small>{SMALL})?")


class ReferenceName(NamedTuple):
    """A network of torchvision: its builder or family, its width if it has one, and whether for small images."""

    model: str
    width: float | None = None
    small: bool = False


def parse(name: str) -> ReferenceName:
    """Return what ``name`` says: ``resnet34``, ``mobilenet_v2:0.35`` or ``mobilenet_v2:0.35@small``.

    It is a classifier of torchvision, or one of :func:`~cars_hw.space.mobile.mobile_zoo`: ``mnasnet_a1:0.5``.

    The number is the width: all channels are multiplied by it. With ``@small`` the first two layers that halve the
    resolution keep it, as is usual for images of 32x32: the published networks are for 224x224.

    Raises:
        InputError: torchvision has no such classifier, or it has no such width.
    """
    from torchvision import models

    found = _FORM.fullmatch(name)
    model = "" if found is None else found["model"]
    width = None if found is None or found["width"] is None else float(found["width"])
    own = model in mobile_zoo()
    if found is None or (width is None and not own and model not in models.list_models(module=models)):
        raise InputError(
            f"torchvision has no classifier '{name}'; write it as in torchvision.models: resnet18, or as one of "
            f"{', '.join(mobile_zoo())}"
        )
    if width is not None and not own:
        _require_width(model, width)
    if width is not None and not 0 < width <= MOST:
        raise InputError(f"the width of {model} must be above 0 and at most {MOST:g}, not {width:g}")
    return ReferenceName(model, width, found["small"] is not None)


def is_reference(name: str) -> bool:
    """Return whether ``name`` is a network that :func:`parse` knows; its width may be one that it cannot have."""
    from torchvision import models

    found = _FORM.fullmatch(name)
    return found is not None and (
        found["width"] is not None
        or found["model"] in mobile_zoo()
        or found["model"] in models.list_models(module=models)
    )


def names_of(families: Iterable[str], *, small: bool) -> list[str]:
    """Return the names of all networks of ``families`` at their widths; with ``small`` for small images."""
    chosen = list(FAMILIES) if "torchvision" in (asked := list(families)) else asked
    models = [model for family in dict.fromkeys(chosen) for model in FAMILIES[family]]
    return [f"{model}:{width:g}{SMALL if small else ''}" for model in models for width in WIDTHS[model]]


def _require_width(model: str, width: float) -> None:
    if model not in WIDTHS:
        raise InputError(f"torchvision's {model} has one width; these have several: {', '.join(WIDTHS)}")
    if model == "shufflenet_v2" and width not in SHUFFLENETS:
        known = ", ".join(f"{one:g}" for one in SHUFFLENETS)
        raise InputError(f"torchvision's shufflenet_v2 has the widths {known}, not {width:g}")
