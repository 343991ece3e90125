"""Published networks beside those of the cell space: made without weights, counted, and written as ONNX.

They are torchvision's, and those of :func:`~cars_hw.space.mobile.mobile_zoo`.

Which names there are, and what widths, is in :mod:`cars_hw.studies.reference_names`.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from cars_hw.config.files import replacing
from cars_hw.export.onnx import ONNX
from cars_hw.nn.cost import Cost
from cars_hw.nn.mobile import MobileNetwork
from cars_hw.space.mobile import mobile_zoo
from cars_hw.space.shape import Shape
from cars_hw.studies.reference_names import HALVINGS, SHUFFLENETS, ReferenceName, parse

MODEL_FORMAT: Final = ONNX.name
"""The format that :func:`write_onnx` writes."""

IMAGENET = (Shape(3, 224, 224), 1000)
"""The images and the number of classes that these networks were published for."""


def make(model: str, shape: Shape = IMAGENET[0], classes: int = IMAGENET[1]) -> nn.Module:
    """Return ``model`` with fresh weights for images of ``shape`` and so many ``classes``.

    ``model`` is a name as :func:`~cars_hw.studies.reference_names.parse` reads it. The first convolution takes the
    images' channels and the classifier has the classes; a width and ``@small`` change what they say, and nothing
    else is changed. Nothing is downloaded.

    Raises:
        InputError: torchvision has no such classifier, or it has no such width.
    """
    name = parse(model)
    if name.model in mobile_zoo():
        genotype = mobile_zoo()[name.model].genotype
        genotype = genotype if name.width is None else genotype.scaled(name.width)
        own = MobileNetwork(genotype, shape.channels, classes)
        if name.small:
            _keep_resolution(own)
        return own
    network = _published(name.model, classes) if name.width is None else _at_width(name, classes)
    if name.small:
        _keep_resolution(network)
    if shape.channels != IMAGENET[0].channels:
        _take_channels(network, shape.channels)
    return network


def _published(model: str, classes: int) -> nn.Module:
    from torchvision import models

    # Auxiliary heads never ship, and an initialisation that only they and this network have takes half a minute.
    options = {"aux_logits": False, "init_weights": False} if model == "googlenet" else {}
    network: nn.Module = models.get_model(model, weights=None, num_classes=classes, **options)
    return network


def _at_width(name: ReferenceName, classes: int) -> nn.Module:
    from torchvision import models

    assert name.width is not None
    if name.model == "shufflenet_v2":
        return _published(SHUFFLENETS[name.width], classes)
    if name.model == "mnasnet":
        network: nn.Module = models.MNASNet(name.width, num_classes=classes)
        return network
    if name.model.startswith("resnet"):
        network = _published(name.model, classes)
        _scale_channels(network, name.width)
        return network
    scaled: nn.Module = models.get_model(name.model, weights=None, num_classes=classes, width_mult=name.width)
    return scaled


def _scale_channels(network: nn.Module, width: float) -> None:
    """Multiply the channels of all layers of a ResNet by ``width``, except for the images and the classes.

    torchvision has no such option for blocks of two convolutions. Weights are drawn as torchvision draws them.
    """

    def scaled(channels: int) -> int:
        return max(1, round(channels * width))

    for index, (path, module) in enumerate(_layers(network)):
        changed: nn.Module
        if isinstance(module, nn.Conv2d):
            changed = nn.Conv2d(
                scaled(module.in_channels) if index else module.in_channels,
                scaled(module.out_channels),
                module.kernel_size,  # type: ignore[arg-type]  # torch says a tuple of any length
                module.stride,  # type: ignore[arg-type]
                module.padding,  # type: ignore[arg-type]
                bias=module.bias is not None,
            )
            nn.init.kaiming_normal_(changed.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            changed = nn.BatchNorm2d(scaled(module.num_features))
        else:
            assert isinstance(module, nn.Linear)
            changed = nn.Linear(scaled(module.in_features), module.out_features)
        _replace(network, path, changed)


def _layers(network: nn.Module) -> list[tuple[str, nn.Module]]:
    return [
        (path, module)
        for path, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.Linear)
    ]


def _keep_resolution(network: nn.Module) -> None:
    """Let the first layers of ``network`` that halve the resolution keep it: :data:`HALVINGS` of them.

    A convolution gets a stride of 1, and a pooling is left out.
    """
    halving = [
        (path, module)
        for path, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.MaxPool2d) and module.stride in (2, (2, 2))
    ]
    for path, module in halving[:HALVINGS]:
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
        else:
            _replace(network, path, nn.Identity())


def _replace(network: nn.Module, path: str, changed: nn.Module) -> None:
    parent, _, last = path.rpartition(".")
    setattr(network.get_submodule(parent), last, changed)


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
    _replace(network, name, like)
