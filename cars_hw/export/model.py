"""Model: a trained network with its card, in one file that needs no run.

The file is a safetensors file. Its metadata have one entry, ``cars-hw``: a checksummed JSON with format, version
and card. The ``digest`` of this card is that of the weights alone, as safetensors without metadata.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from cars_hw.config.checksummed import ChecksummedFormat, digest
from cars_hw.config.codec import unstructure
from cars_hw.config.files import replacing
from cars_hw.errors import InputError
from cars_hw.export.card import NO_FIGURES, Figures, ModelCard, Preprocessing
from cars_hw.nn.network import Network
from cars_hw.version import versions_of

MODEL: Final = ChecksummedFormat("cars-hw model", 1, "export-again", InputError)

METADATA: Final = "cars-hw"
"""The entry of the metadata. A single one, because safetensors writes several in any order."""

WEIGHTS: Final = "model.safetensors"
"""The weights in a folder for a model hub."""

CONFIG: Final = "config.json"
"""The card in a folder for a model hub: the same JSON as in the weights."""

SUFFIX: Final = ".safetensors"

AUXILIARY: Final = "auxiliary."
"""How the names of the auxiliary head's weights begin. They are for training only, and in no file."""


class Model(Network):
    """A network with its card: what :func:`load_model` returns.

    It is a torch module. Images (N, C, H, W), normalised as ``card.preprocessing`` says, become logits (N,
    classes). ``card`` describes it. Set ``card`` to change figures, such as the accuracy after a further training.
    """

    def __init__(self, card: ModelCard) -> None:
        super().__init__(card.network, card.genotype)
        self.card = card

    @classmethod
    def of(
        cls,
        network: Network,
        preprocessing: Preprocessing,
        class_names: Sequence[str],
        figures: Figures = NO_FIGURES,
    ) -> Model:
        """Return a model in eval mode with a copy of the weights of ``network``; ``figures`` are for the card.

        Raises:
            InputError: preprocessing, class names or a figure do not fit the network.
        """
        card = ModelCard(
            genotype=network.genotype,
            network=network.spec,
            preprocessing=preprocessing,
            class_names=tuple(class_names),
            parity=0.0,
            versions={},
            digest="",
            **vars(figures),
        )
        model = cls(card)
        model.load_state_dict(_kept(network.state_dict()))
        return model.eval()

    def reset_classifier(self, class_names: Sequence[str] | int) -> None:
        """Replace the classifier by a fresh one for ``class_names``, or for a number of classes.

        Every other weight stays. The accuracy and the latencies of the card are no longer those of the network, and
        are removed.

        Raises:
            InputError: there are fewer than two classes.
        """
        names = tuple(map(str, range(class_names))) if isinstance(class_names, int) else tuple(class_names)
        spec = self.spec.with_changes(classes=len(names))
        old = self.classifier
        self.classifier = nn.Linear(old.in_features, len(names), device=old.weight.device, dtype=old.weight.dtype)
        self.spec = spec
        self.card = replace(
            self.card, network=spec, class_names=names, accuracy=None, test_images=None, latencies=()
        )

    def read(self, *files: Path | str) -> Tensor:
        """Return image files as the network takes them: float32 (N, C, H, W), on the CPU.

        Raises:
            InputError: the network does not take image files, or no file is given.
            DatasetError: a file cannot be read.
        """
        from cars_hw.data.images import read_by
        from cars_hw.export.classify import prepare

        steps = self.card.preprocessing
        if steps.decoding is None:
            raise InputError(f"the network is for {steps.channels} channels, which image files do not have")
        if not files:
            raise InputError("no image file is given")
        pixels = [read_by(Path(file), steps.decoding, steps.resizing, steps.resolution) for file in files]
        return torch.from_numpy(np.concatenate([prepare(one, steps) for one in pixels]))

    def save(self, path: Path | str) -> ModelCard:
        """Write weights and card to ``path``, which ends in ``.safetensors``; return the card as it is written.

        Raises:
            InputError: the name ends otherwise.
        """
        path = Path(path)
        if path.suffix != SUFFIX:
            raise InputError(f"{path} must end in {SUFFIX}")
        content, card = self.to_bytes()
        with replacing(path) as temporary:
            temporary.write_bytes(content)
        return card

    def export(self, path: Path | str, *, dynamic_batch: bool = False) -> ModelCard:
        """Write an ONNX or TFLite model and its card to ``path``, whose end tells which; return its card.

        Raises:
            ExportError: the model does not compute what the network does; nothing is written.
            InputError: the name does not end as a known format's.
        """
        from cars_hw.export.export import export_model
        from cars_hw.export.formats import format_of_file

        path, card = Path(path), self.card
        return export_model(
            self,
            path,
            format_of_file(path).name,
            preprocessing=card.preprocessing,
            class_names=card.class_names,
            figures=Figures(card.accuracy, card.test_images, augmentations=card.augmentations),
            dynamic_batch=dynamic_batch,
        )

    def to_bytes(self) -> tuple[bytes, ModelCard]:
        """Return the content of the model's file, and the card in it."""
        from safetensors.torch import save

        weights = _kept(self.state_dict())
        versions = {
            "python": platform.python_version(),
            **versions_of(("cars-hw", "torch", "numpy", "pillow", "safetensors")),
        }
        self.card = replace(self.card, versions=versions, digest=digest(save(weights)))
        return save(weights, {METADATA: MODEL.text(unstructure(self.card))}), self.card


def load_model(path: Path | str) -> Model:
    """Return the model in ``path``, on the CPU and in eval mode.

    ``path`` is a file that :meth:`Model.save`, a training or an export wrote, or a folder for a model hub, with
    ``model.safetensors`` in it. No run is needed, and nothing is unpickled.

    Raises:
        InputError: there is no such file, it is damaged, holds no model of cars-hw, or is of a newer cars-hw.
    """
    path = Path(path).expanduser()
    file = path / WEIGHTS if path.is_dir() else path
    if path.is_dir() and not file.is_file():
        raise InputError(_no_model_in(path))
    card, weights = _read(file)
    if path.is_dir() and (path / CONFIG).is_file():
        written = MODEL.read_record(path / CONFIG, ModelCard)
        if written != card:
            raise InputError(f"{path / CONFIG} does not describe {file}", remedy="export-again")
    model = Model(card)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"the weights in {file} are not those of its network", remedy="export-again") from error
    return model.eval()


def _read(file: Path) -> tuple[ModelCard, dict[str, Tensor]]:
    """Return the card in ``file`` and its weights, after both were verified."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save

    try:
        with safe_open(file, framework="pt") as content:
            metadata = content.metadata() or {}
            weights = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 -- no mapping
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise InputError(f"cannot read {file} as safetensors: {reason}") from error
    if METADATA not in metadata:
        raise InputError(f"{file} holds weights, but no card of cars-hw that says of which network")
    card = MODEL.structured(file, MODEL.parse(file, metadata[METADATA]), ModelCard)
    if digest(save(weights)) != card.digest:
        raise InputError(
            f"the weights in {file} were changed or damaged after they were written", remedy="export-again"
        )
    return card, weights


def _no_model_in(folder: Path) -> str:
    found = sorted(
        path for path in folder.glob("trained/*.safetensors") if not path.name.endswith(".last" + SUFFIX)
    )
    if found:
        return f"{folder} is a run; give one of its networks, such as {found[0]}"
    return f"there is no {WEIGHTS} in {folder}"


def _kept(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights that are written: without the auxiliary head, and as safetensors takes them."""
    return {
        name: value.detach().cpu().contiguous() for name, value in weights.items() if not name.startswith(AUXILIARY)
    }
