"""A teacher: a network of torchvision that was trained before, and whose answers a training learns.

The teacher sees each training image once, before the first epoch, as it is and not varied. A part of the label of
the image is then the teacher's answer (Hinton et al., Distilling the Knowledge in a Neural Network, 2015, with
answers that are computed once).

A teacher that was trained on other classes, such as those of ImageNet, has a linear classifier fitted to its
features of the training images. Each image is answered by the classifier of all other images, so that no label is
repeated: see :mod:`cars_hw.training.linear_probe`. A teacher with as many classes as the data answers by its own
classifier if that gets more of the training images right: its classes then are those of the data.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cars_hw.config.checksummed import digest
from cars_hw.config.files import expanded
from cars_hw.config.teacher import Teacher
from cars_hw.data import DataBundle, Dataset
from cars_hw.errors import InputError
from cars_hw.progress import Log, Progress, no_log, silent
from cars_hw.training.linear_probe import left_out_scores

BATCH: Final = 32

_DENSE_LAYER: Final = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.")

_AS_TRAINED: Final[Mapping[str, Mapping[str, Any]]] = {
    name: {"transform_input": True, "init_weights": False} for name in ("googlenet", "inception_v3")
}
"""Settings of networks whose published weights expect another normalisation; they also draw no random weights."""

MEAN: Final = (0.485, 0.456, 0.406)
STD: Final = (0.229, 0.224, 0.225)
"""The normalisation of torchvision's networks."""


class TeacherNetwork:
    """The teacher that ``settings`` name, with its weights, in eval mode.

    ``about`` tells which it is: its name, the digest of its weights and the other settings.

    Raises:
        InputError: there is no such network, the file cannot be read, or it holds weights of another network,
            or the network cannot have images of the resolution.
    """

    def __init__(self, settings: Teacher) -> None:
        if settings.network is None or settings.weights is None:
            raise InputError(
                "a teacher is the name of a network of torchvision and a file with its weights: give both"
            )
        content, weights = _read(expanded(settings.weights))
        self.settings = settings
        self.about = (
            f"{settings.network} {digest(content)} share {settings.share:g} temperature {settings.temperature:g} "
            f"at {settings.resolution[0]}x{settings.resolution[1]}"
        )
        self.network = _built(settings.network, settings.weights, weights).eval()
        self._classifier = _last_linear(settings.network, self.network)[1]
        self._require_resolution()

    @property
    def classes(self) -> int:
        """The classes of its own classifier."""
        return self._classifier.out_features

    def labels(
        self,
        images: Dataset,
        data: DataBundle,
        device: torch.device | str,
        progress: Progress = silent,
        log: Log = no_log,
    ) -> Tensor:
        """Return labels of which a part is the teacher's answer: float32 of shape ``(images, classes)``.

        They are in the order of ``images``, training images of ``data``, and on their device. ``log`` tells how
        many of them the teacher answers right.
        """
        logits, features = self._outputs(images, device, progress)
        right = images.labels.to(logits.device)
        how = "a linear classifier of its features"
        answers = left_out_scores(features, right, data.classes).float().clamp_min(0)
        if self.classes == data.classes and _accuracy(logits, right) > _accuracy(answers, right):
            answers, how = logits.softmax(dim=1), "its own classifier"
        answers = answers.clamp_min(1e-12) ** (1 / self.settings.temperature)
        answers = answers / answers.sum(dim=1, keepdim=True)
        accuracy = _accuracy(answers, right)
        log(f"the teacher {self.settings.network} answers {accuracy:.1%} of the training images right, by {how}")
        share = self.settings.share
        # Tensors of inference mode must not be in a graph of gradients: this makes new ones.
        mixed = (1 - share) * F.one_hot(right, data.classes).float() + share * answers
        return mixed.to(images.device)

    @torch.inference_mode()
    def _require_resolution(self) -> None:
        """Check that the network computes with images of its resolution.

        Raises:
            InputError: it does not.
        """
        height, width = self.settings.resolution
        try:
            self.network(torch.zeros(1, 3, height, width))
        except (AssertionError, RuntimeError, ValueError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"{self.settings.network} cannot have images of {height}x{width} pixels ({reason[:200]})",
                remedy="other-teacher-resolution",
            ) from error

    @torch.inference_mode()
    def _outputs(self, images: Dataset, device: torch.device | str, progress: Progress) -> tuple[Tensor, Tensor]:
        """Return the logits of all images and the inputs of the classifier: float32, on the device."""
        kept: list[Tensor] = []
        hook = self._classifier.register_forward_pre_hook(
            lambda _module, inputs: kept.append(inputs[0].flatten(1).float())
        )
        network = self.network.to(device)
        mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (MEAN, STD))
        logits: list[Tensor] = []
        places = torch.split(torch.arange(len(images), device=images.device), BATCH)
        try:
            for number, (pixels, _) in enumerate(images.batches(places)):
                progress("asking the teacher", number * BATCH, len(images))
                # Grey images as three equal channels.
                scaled = (pixels.to(device).float() / 255).expand(-1, 3, -1, -1)
                if scaled.shape[2:] != self.settings.resolution:
                    scaled = F.interpolate(scaled, self.settings.resolution, mode="bilinear", antialias=True)
                logits.append(network((scaled - mean) / std).float())
        finally:
            hook.remove()
        progress("asking the teacher", len(images), len(images))
        return torch.cat(logits), torch.cat(kept)


def _accuracy(scores: Tensor, labels: Tensor) -> float:
    return float((scores.argmax(dim=1) == labels).double().mean())


def _read(path: Path) -> tuple[bytes, dict[str, Tensor]]:
    """Return the content of the file and the weights in it; nothing else is unpickled."""
    import io

    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the teacher's weights {path}: {error.strerror}") from error
    try:
        if path.suffix == ".safetensors":
            return content, _named(load(content))
        loaded: Any = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise InputError(f"{path} is no safetensors file: {error}") from error
    # torch raises pickle's errors, RuntimeError and others for files that are none, or hold more than weights.
    except Exception as error:
        raise InputError(
            f"{path} holds no weights that can be read without running code; save the network's state_dict, or "
            "convert it to safetensors"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise InputError(f"{path} holds no weights; save the network's state_dict")
    return content, _named(loaded)


def _named(weights: Mapping[Any, Tensor]) -> dict[str, Tensor]:
    """Return ``weights`` by the names of the modules.

    Files of parallel trainings have ``module.`` before each name. Torchvision's own files of DenseNet are from a
    version in which ``norm1`` was ``norm.1``.
    """
    plain = {str(name).removeprefix("module."): value for name, value in weights.items()}
    return {_DENSE_LAYER.sub(r"\1\2.", name): value for name, value in plain.items()}


def _built(name: str, path: Path, weights: Mapping[str, Tensor]) -> nn.Module:
    """Return the network ``name`` of torchvision with ``weights``, and with as many classes as these have."""
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise InputError(f"torchvision has no network {name!r}; it has {', '.join(known)}")
    own = _AS_TRAINED.get(name, {})
    with torch.random.fork_rng(devices=[]):
        # On no device: only its names and shapes are of interest.
        with torch.device("meta"):
            place, _ = _last_linear(name, models.get_model(name, weights=None, **own))
        classifier = weights.get(f"{place}.weight")
        if classifier is None:
            raise InputError(f"the weights in {path} are not those of {name}: {place}.weight is missing")
        network: nn.Module = models.get_model(name, weights=None, num_classes=len(classifier), **own)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise InputError(f"the weights in {path} are not those of {name}: {reason[:200]}") from error
    return network


def _last_linear(name: str, network: nn.Module) -> tuple[str, nn.Linear]:
    found = [(place, module) for place, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not found:
        raise InputError(f"{name} has no linear classifier, so it cannot be a teacher; choose another network")
    return found[-1]
