"""NetworkSpec: everything of a network except its genotype, and the shapes of its activations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Literal, NamedTuple

from cars_hw.config.setting import Settings, setting
from cars_hw.errors import InputError, SpecError
from cars_hw.space.families import (
    BLOCK_FAMILIES,
    DARTS,
    FAMILIES,
    BlockFamily,
    CellFamily,
    block_family,
    named_family,
)
from cars_hw.space.genotype import NODES, Genotype
from cars_hw.space.shape import Shape

Stem = Literal["cifar", "imagenet", "cells"]
"""Before the first cell: one convolution; three that halve; or one that halves, and two cells that do."""

STEM_MULTIPLIER: Final = 3
"""The CIFAR stem has three times the channels of the first cell (DARTS)."""


CELLS_STEM_CHANNELS: Final = 32
"""The channels of the convolution before the cells of a stem, as in NASNet's mobile networks."""

STAGES: Final = 3
"""A network has so many stages, each at half the resolution of the one before."""

LARGEST: Final = 8192
"""The largest side of an image in pixels. Bounds keep a damaged number from filling the memory."""


class CellLayout(NamedTuple):
    """Where one cell stands in the network.

    ``inputs`` are the shapes of the two incoming states, before their preprocessing to ``channels``;
    ``inner`` is what the two preprocessed states have, ``output`` what every node has.
    """

    position: int
    reduction: bool
    previous_reduction: bool
    inputs: tuple[Shape, Shape]
    inner: Shape
    output: Shape
    parts: int = NODES

    @property
    def concatenated(self) -> Shape:
        """The shape of the cell's output, its ``parts`` side by side."""
        return self.output._replace(channels=self.parts * self.output.channels)


@dataclass(frozen=True)
class NetworkSpec(Settings):
    """Everything of a network except its genotype: width, depth, input, classes and stem.

    A network is made of cells, or of blocks if its family is one of blocks. Below, "cells" stands for both.
    ``channels`` is the number of channels of the first cell. They double at each of the two reduction cells.
    ``depths`` are the numbers of cells of the three stages; the second and the third begin with a reduction. None
    stands for reductions at one third and two thirds of ``layers``, as in DARTS; such depths become None.
    ``resolution`` is (height, width) in pixels. ``family`` names the cells, see :mod:`cars_hw.space.families`; a
    name such as ``darts+conv_1x1`` has further operations.

    Raises:
        SpecError: a size that no network can have.
    """

    channels: int = setting(
        help="Channels of the first cell, an even number; they double at each of two reductions.",
        minimum=1,
        maximum=4096,
    )
    layers: int = setting(help="Number of cells, 3 at least.", minimum=3, maximum=1000)
    resolution: tuple[int, int] = setting(
        help="Images are resized to this size in pixels: 32, or height x width such as 65x97.", metavar="HxW"
    )
    in_channels: int = setting(3, help="1 for grey images, 3 for colour.", minimum=1, maximum=4096)
    classes: int = setting(10, help="Number of classes.", minimum=2, maximum=1_000_000)
    stem: Stem = setting("cifar", help="Layers before the first cell: those for small images, or those for large.")
    depths: tuple[int, int, int] | None = setting(
        None, help="Cells of each of the three stages. [reductions at one third and two thirds]"
    )
    family: str = setting(
        DARTS,
        help=f"Cells of which the network is made: {', '.join(FAMILIES)}; or blocks: {', '.join(BLOCK_FAMILIES)}. "
        "A + adds an operation that cells do not have, such as darts+conv_1x1; packages can add operations.",
        metavar="NAME[+OPERATION]",
    )

    OPTIONAL: ClassVar = frozenset({"family"})

    out_of_bounds: ClassVar[type[InputError]] = SpecError

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels % 2:
            raise SpecError(f"channels must be even, not {self.channels}: a strided skip is made of two halves")
        if self.blocks is None:
            named_family(self.family)
        elif self.stem == "cells":
            raise SpecError(f"{self.family} networks are made of blocks: their stem cannot be cells")
        if self.stem == "cells" and self.channels < 8:
            raise SpecError("a stem with cells needs at least 8 channels, of which its first cell has a quarter")
        least = 8 if self.stem == "cifar" else 32
        if len(self.resolution) != 2 or min(self.resolution) < least:
            raise SpecError(f"resolution must be at least {least}x{least} for the {self.stem} stem")
        if max(self.resolution) > LARGEST:
            raise SpecError(f"resolution must be at most {LARGEST}x{LARGEST}")
        if self.depths is not None:
            self._require_depths(self.depths)
            if self.depths == standard_depths(self.layers):
                object.__setattr__(self, "depths", None)

    def _require_depths(self, depths: tuple[int, int, int]) -> None:
        if len(depths) != STAGES or min(depths) < 1 or sum(depths) != self.layers:
            given = ", ".join(map(str, depths))
            raise SpecError(f"depths must be the cells of {STAGES} stages, {self.layers} in all, not {given}")

    @property
    def stages(self) -> tuple[int, int, int]:
        """The number of cells of each stage."""
        return self.depths or standard_depths(self.layers)

    @property
    def reductions(self) -> tuple[int, int]:
        """The indices of the two cells that halve the resolution."""
        first, second, _ = self.stages
        return first, first + second

    @property
    def input_shape(self) -> Shape:
        """The shape of one image."""
        return Shape(self.in_channels, *self.resolution)

    def stem_shapes(self, parts: tuple[int, int] | None = None) -> tuple[Shape, Shape]:
        """Return the shapes of the two states that the first cell gets; for ``parts`` see :meth:`cells`."""
        if self.stem == "cifar":
            state = Shape(STEM_MULTIPLIER * self.channels, *self.resolution)
            return state, state
        if self.stem == "cells":
            first, second = self.stem_cells(None if parts is None else parts[1])
            return first.concatenated, second.concatenated
        quarter = self.input_shape.halved().halved(self.channels)
        return quarter, quarter.halved()

    @property
    def cell_family(self) -> CellFamily:
        """The family of its cells, with the further operations.

        Raises:
            GenotypeError: it is made of blocks.
        """
        return named_family(self.family)

    @property
    def blocks(self) -> BlockFamily | None:
        """The family of its blocks; None where it is made of cells."""
        return block_family(self.family)

    @property
    def base_family(self) -> str:
        """The name of the family of its genotypes."""
        return self.cell_family.base if self.blocks is None else self.blocks.name

    @property
    def parts(self) -> str:
        """What it is made of, in words: cells or blocks."""
        return "cells" if self.blocks is None else "blocks"

    def stem_image(self) -> Shape:
        """Return the shape of the image that the cells of the stem read, where there are some."""
        return self.input_shape.halved(CELLS_STEM_CHANNELS)

    def stem_cells(self, parts: int | None = None) -> tuple[CellLayout, ...]:
        """Return the layouts of the two cells of the stem, at the positions -2 and -1; nothing if it has none.

        They are reductions, with a quarter and a half of the channels of the first cell, rounded down. ``parts``
        is the number of states that the output of a reduction is made of, by default all nodes.
        """
        if self.stem != "cells":
            return ()
        parts = self.cell_family.nodes if parts is None else parts
        layouts: list[CellLayout] = []
        before = last = self.stem_image()
        for position, share in ((-2, 4), (-1, 2)):
            inner = last._replace(channels=self.channels // share)
            inputs, again = (before, last), position == -1
            layouts.append(CellLayout(position, True, again, inputs, inner, inner.halved(), parts))
            before, last = last, layouts[-1].concatenated
        return tuple(layouts)

    def cells(self, parts: tuple[int, int] | None = None) -> tuple[CellLayout, ...]:
        """Return the layout of every cell behind the stem, first to last.

        ``parts`` are the numbers of states that the outputs of normal and of reduction cells are made of, by
        default all nodes; see :attr:`Genotype.parts`.
        """
        nodes = self.cell_family.nodes
        normal, reduction_parts = (nodes, nodes) if parts is None else parts
        layouts = []
        before, last = self.stem_shapes((normal, reduction_parts))
        previous_reduction = self.stem != "cifar"
        channels = self.channels
        for index in range(self.layers):
            reduction = index in self.reductions
            channels = 2 * channels if reduction else channels
            inner = last._replace(channels=channels)
            output = inner.halved() if reduction else inner
            own = reduction_parts if reduction else normal
            layouts.append(CellLayout(index, reduction, previous_reduction, (before, last), inner, output, own))
            before, last = last, layouts[-1].concatenated
            previous_reduction = reduction
        return tuple(layouts)

    def require_family(self, genotype: Genotype) -> None:
        """Check that ``genotype`` is one of this network's family of cells.

        Raises:
            SpecError: its cells are of another family.
        """
        if genotype.family != self.base_family:
            raise SpecError(
                f"the genotype has {genotype.family} {genotype.made_of} and the network {self.base_family} "
                f"{self.parts}"
            )
        genotype.require_size(self.layers, self.reductions)

    @property
    def size(self) -> str:
        """The size in words: ``24 channels, 9 cells``, with the cells of each stage where they are not a third."""
        stages = "" if self.depths is None else f" ({'+'.join(map(str, self.depths))})"
        return f"{self.channels} channels, {self.layers} {self.parts}{stages}"

    @property
    def pixels(self) -> str:
        """The resolution in words: ``32x32``."""
        return resolution_text(self.resolution)

    @property
    def common(self) -> str:
        """What networks of all sizes have in common, in words: ``10 classes, cifar stem``."""
        family = "" if self.family == DARTS else f", {self.family} {self.parts}"
        return f"{self.classes} classes, {self.stem} stem{family}"

    def describe(self) -> str:
        """Return one line for people."""
        return f"{self.size}, {self.pixels}x{self.in_channels}, {self.common}"

    def is_size_of(self, other: NetworkSpec, *, any_resolution: bool = False) -> bool:
        """Return whether this network is ``other`` at some size: all but channels and cells are equal.

        With ``any_resolution``, the resolution may differ, too.
        """
        return self.sized(other, resolution=other.resolution if any_resolution else None) == other

    def sized(self, other: NetworkSpec, *, resolution: tuple[int, int] | None = None) -> NetworkSpec:
        """Return this network with the channels and the cells of ``other``; at ``resolution`` if it is given."""
        return replace(
            self,
            channels=other.channels,
            layers=other.layers,
            depths=other.depths,
            resolution=resolution or self.resolution,
        )

    def with_changes(
        self,
        *,
        channels: int | None = None,
        layers: int | None = None,
        resolution: tuple[int, int] | None = None,
        in_channels: int | None = None,
        classes: int | None = None,
        family: str | None = None,
    ) -> NetworkSpec:
        """Return a copy with every given field changed; with ``layers``, its reductions are at thirds."""
        changes: dict[str, Any] = {
            "channels": channels,
            "layers": layers,
            "resolution": resolution,
            "in_channels": in_channels,
            "classes": classes,
            "family": family,
        }
        if layers is not None:
            changes["depths"] = None
        given = {name: value for name, value in changes.items() if value is not None or name == "depths"}
        return replace(self, **given)


def size_words(networks: Iterable[NetworkSpec], *, always: bool = False) -> Callable[[NetworkSpec], str]:
    """Return what gives the size of one of ``networks`` in words.

    The words tell its resolution if ``networks`` differ in it, or ``always``.
    """
    differ = always or len({one.resolution for one in networks}) > 1
    return lambda network: f"{network.size}, {network.pixels} pixels" if differ else network.size


def resolution_text(resolution: tuple[int, int]) -> str:
    """Return a resolution in words: ``32x32``."""
    height, width = resolution
    return f"{height}x{width}"


def standard_depths(layers: int) -> tuple[int, int, int]:
    """Return the cells of each stage where the reductions are at one third and two thirds of ``layers`` (DARTS)."""
    first, second = layers // 3, 2 * layers // 3
    return first, second - first, layers - second


NETWORKS: Final[dict[str, NetworkSpec]] = {
    "cifar": NetworkSpec(channels=36, layers=20, resolution=(32, 32)),
    "imagenet": NetworkSpec(channels=48, layers=14, resolution=(224, 224), classes=1000, stem="imagenet"),
    "quick": NetworkSpec(channels=8, layers=5, resolution=(28, 28), in_channels=1),
    "tiny": NetworkSpec(channels=8, layers=3, resolution=(14, 14), in_channels=1),
}
"""The networks that have a name: the paper's two, the small one of the quickstart, and one for many searches."""


def named_network(name: str) -> NetworkSpec:
    """Return the network called ``name``.

    Raises:
        SpecError: there is none; the message lists those that are.
    """
    if name not in NETWORKS:
        raise SpecError(f"unknown network '{name}'; known: {', '.join(NETWORKS)}")
    return NETWORKS[name]
