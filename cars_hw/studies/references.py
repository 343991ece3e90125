"""torchvision's networks beside those of the cell space: made without weights, counted, and written as ONNX."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from cars_hw.config.files import replacing
from cars_hw.errors import InputError
from cars_hw.export.onnx import ONNX
from cars_hw.nn.cost import Cost
from cars_hw.space.shape import Shape

MODEL_FORMAT: Final = ONNX.name
"""The format that :func:`write_onnx` writes."""

IMAGENET = (Shape(3, 224, 224), 1000)
"""The images and the number of classes that these networks were published for."""


def make(model: str, shape: Shape = IMAGENET[0], classes: int = IMAGENET[1]) -> nn.Module:
    """Return torchvision's ``model`` with fresh weights for images of ``shape`` and so many ``classes``.

    The first convolution takes the images' channels and the classifier has the classes; nothing else is changed.
    Nothing is downloaded.

    Raises:
        InputError: torchvision has no such classifier.
    """
    from torchvision import models

    if model not in models.list_models(module=models):
        raise InputError(f"torchvision has no classifier '{model}'; write it as in torchvision.models: resnet18")
    # Auxiliary heads never ship, and an initialisation that only they and this network have takes half a minute.
    options = {"aux_logits": False, "init_weights": False} if model == "googlenet" else {}
    network: nn.Module = models.get_model(model, weights=None, num_classes=classes, **options)
    if shape.channels != IMAGENET[0].channels:
        _take_channels(network, shape.channels)
    return network


def count(model: str, shape: Shape = IMAGENET[0], classes: int = IMAGENET[1]) -> Cost:
    """Return what torchvision's ``model`` costs on one image of ``shape``, as :mod:`cars_hw.nn.cost` counts.

    A normalisation is folded into the convolution before it, as :func:`write_onnx` does; one without a convolution
    before it is kept. Nothing is computed: the shapes of all activations are followed through the network.
    """
    with torch.device("meta"):
        network = make(model, shape, classes).eval()
        image = torch.empty(1, *shape)
    multiply_adds = folded = 0
    convolved: list[tuple[Tensor, nn.Conv2d]] = []

    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal multiply_adds, folded
        if isinstance(module, nn.BatchNorm2d):
            before = [convolution for value, convolution in convolved[-1:] if value is inputs[0]]
            # The scale is folded into the weights; a convolution with a bias already has what the shift becomes.
            folded += sum(module.num_features * (1 if one.bias is None else 2) for one in before)
            return
        assert isinstance(module, nn.Conv2d | nn.Linear)
        # Each output element takes the weights of its own row or filter.
        multiply_adds += output.numel() * module.weight[0].numel()
        if isinstance(module, nn.Conv2d):
            convolved.append((output, module))

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            module.register_forward_hook(add)
    with torch.no_grad():
        network(image)
    trained = sum(parameter.numel() for parameter in network.parameters())
    return Cost(trained - folded, multiply_adds, folded)


def write_onnx(network: nn.Module, shape: Shape, path: Path) -> None:
    """Write ``network`` for one image of ``shape`` to ``path``, its normalisations folded into convolutions."""
    with replacing(path) as temporary, warnings.catch_warnings():
        # torch's other exporter needs a package more, and takes a hundred times as long.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            network.cpu().eval(),
            (torch.zeros(1, *shape),),
            str(temporary),
            dynamo=False,
            input_names=["input"],
            output_names=["logits"],
        )


def _take_channels(network: nn.Module, channels: int) -> None:
    """Give ``network`` a first convolution like its own for images of so many ``channels``."""
    name, first = next((name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d))
    like = nn.Conv2d(
        channels,
        first.out_channels,
        first.kernel_size,  # type: ignore[arg-type]  # torch says a tuple of any length
        first.stride,  # type: ignore[arg-type]
        first.padding,  # type: ignore[arg-type]
        bias=first.bias is not None,
    )
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, like)
