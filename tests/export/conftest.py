from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Run torch on one thread: on images this small, threads that share their cores only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def seasoned() -> Callable[[nn.Module, Tensor], nn.Module]:
    """Return a function that gives a module the normalisations of a trained one, on (N, C, H, W) images.

    Averages of real activations keep the signal alive through all cells; on top of them, everything that is
    folded differs from channel to channel, so that a fold that forgets a term shows.
    """

    def season(module: nn.Module, images: Tensor) -> nn.Module:
        generator = torch.Generator().manual_seed(1)
        norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
        with torch.no_grad():
            for norm in norms:
                norm.momentum = None
                norm.weight.uniform_(0.5, 1.5, generator=generator)
                norm.bias.normal_(0, 0.5, generator=generator)
            module.train()(images)
            for norm in norms:
                assert norm.running_mean is not None and norm.running_var is not None
                norm.running_mean += torch.randn(norm.num_features, generator=generator).mul(0.1)
                norm.running_var *= torch.rand(norm.num_features, generator=generator) + 0.5
        return module.eval()

    return season
