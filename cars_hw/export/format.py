"""What an export format is: one object that writes, runs and quantises model files of its kind.

:mod:`cars_hw.export.formats` has the table of them. A module that defines a format imports its libraries inside of
its methods, so that the table costs nothing and one installed runtime is enough.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from cars_hw.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from cars_hw.config.measurement import Int8Scheme, Precision
    from cars_hw.export.graph import Graph
    from cars_hw.space.shape import Shape

    FloatArray = npt.NDArray[np.float32]

    Runner = Callable[[FloatArray], FloatArray]
    """From a batch of one image, laid out as the model takes it, to its logits (1, classes)."""

    Values = dict[str, npt.NDArray[Any]]
    """Tensors by name: images (N, C, H, W) and vectors (N, C)."""

    Feeds = Sequence[Mapping[str, FloatArray]]
    """What a model takes: one mapping from input names to values for each image, laid out as the format wants."""

    Ranges = Mapping[str, tuple[float, float]]
    """The smallest and the largest value that int8 represents, by tensor; values outside of it are clipped."""

    Activations = Callable[[Mapping[str, FloatArray]], Iterator[tuple[str, npt.NDArray[Any]]]]
    """From one image's feed to all tensors that depend on it, by name."""

Layout = Literal["NCHW", "NHWC"]

NO_METADATA: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True)
class Usage:
    """How a classifier is used: ``(pixel * scale - mean) / std`` of each channel goes in, class scores come out.

    ``class_names[i]`` belongs to the score ``i``.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float
    class_names: tuple[str, ...]


class ExportFormat(ABC):
    """A format of model files, each a single file. :class:`FloatFormat` is the base of those without int8.

    Attributes:
        name: what a device's ``model_format`` and the command line call it.
        suffix: how its files end, with the dot.
        layout: how it lays out an image.
        precisions: what it can be written in.
        packages: the distributions that write and run it; model cards keep their versions.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    layout: ClassVar[Layout]
    precisions: ClassVar[tuple[Precision, ...]]
    packages: ClassVar[tuple[str, ...]]

    def image_shape(self, shape: Shape) -> tuple[int, int, int, int]:
        """Return the shape of a batch of one image of ``shape``, as a model takes it."""
        channels, height, width = shape
        return (1, channels, height, width) if self.layout == "NCHW" else (1, height, width, channels)

    def require_precision(self, precision: str) -> None:
        """Check that models of ``precision`` can be written.

        Raises:
            InputError: they cannot.
        """
        if precision not in self.precisions:
            known = ", ".join(self.precisions)
            raise InputError(f"{self.name} models have no precision '{precision}'; known: {known}")

    @abstractmethod
    def write(
        self,
        graph: Graph,
        *,
        dynamic_batch: bool = False,
        metadata: Mapping[str, str] = NO_METADATA,
        usage: Usage | None = None,
    ) -> bytes:
        """Return ``graph`` as a float32 model; the same arguments give the same bytes.

        A model declares a batch of one image, or an open one with ``dynamic_batch``. ``metadata`` is stored in it,
        and ``usage`` too, in the way that other programs for the format look for it, if there is one.

        Raises:
            ExportError: the graph has a layer that the format cannot express.
        """

    @abstractmethod
    def open(self, model: Path) -> Runner:
        """Return what runs the file ``model`` on one thread, whichever its precision.

        Opening and running may raise any exception; :func:`cars_hw.export.classify.open_model` converts it.
        """

    @abstractmethod
    def values(self, model: Path, images: FloatArray, wanted: Callable[[str], bool]) -> Values:
        """Return the outputs of the float32 file ``model`` and its tensors whose names are ``wanted``.

        ``images`` (N, C, H, W) are run one by one on one thread. The outputs are those of the file as it is.

        Raises:
            ExportError: the runtime cannot run the model.
        """

    @abstractmethod
    def quantize(self, model: bytes, feeds: Feeds, ranges: Ranges, scheme: Int8Scheme) -> bytes:
        """Return the float32 ``model`` in int8, see :func:`cars_hw.export.quantize.quantize`.

        It may raise any exception; that function converts it.
        """

    @abstractmethod
    def activations(self, model: bytes) -> Activations:
        """Return what runs the float32 ``model`` and yields all of its activations."""

    @abstractmethod
    def output_names(self, model: bytes) -> list[str]:
        """Return the names of the outputs of ``model``."""

    @abstractmethod
    def subtract_bias(self, model: bytes, bias: FloatArray) -> bytes:
        """Return the float32 ``model`` with ``bias`` (classes,) subtracted from the bias that gives its logits."""


class FloatFormat(ExportFormat):
    """A format of float32 models only: base of formats that cannot be quantised."""

    precisions = ("fp32",)

    def quantize(self, model: bytes, feeds: Feeds, ranges: Ranges, scheme: Int8Scheme) -> bytes:
        """Raise InputError."""
        del model, feeds, ranges, scheme
        raise self._no_int8()

    def activations(self, model: bytes) -> Activations:
        """Raise InputError."""
        del model
        raise self._no_int8()

    def output_names(self, model: bytes) -> list[str]:
        """Raise InputError."""
        del model
        raise self._no_int8()

    def subtract_bias(self, model: bytes, bias: FloatArray) -> bytes:
        """Raise InputError."""
        del model, bias
        raise self._no_int8()

    def _no_int8(self) -> InputError:
        return InputError(f"{self.name} models are float32 only")
