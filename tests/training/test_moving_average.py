"""The moving average of a network's weights is that of PyTorch, and asks a GPU once."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cars_hw.training.moving_average import MovingAverage


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 2))


def change(model: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for one in model.parameters():
            one.add_(torch.randn(one.shape, generator=generator))
        model.train()(torch.randn(5, 3, 4, 4, generator=generator))


def test_the_averages_are_those_of_pytorch_also_after_a_resumption(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    own = MovingAverage(model, 0.9)
    other = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    asked = []
    whole = torch.Tensor.__int__
    monkeypatch.setattr(torch.Tensor, "__int__", lambda self: asked.append(1) or whole(self))
    for step in range(4):
        change(model, step)
        if step == 2:
            # From a state of PyTorch's class.
            own = MovingAverage(network(), 0.9)
            own.load_state_dict(other.state_dict())
        for average in (own, other):
            average.update_parameters(model)
        for (name, mine), theirs in zip(own.state_dict().items(), other.state_dict().values(), strict=True):
            if "num_batches" not in name:
                assert torch.equal(mine, theirs), name
    assert int(own.n_averaged) == 4
    # Once at the start, once behind the resumption, and here.
    assert len(asked) == 3
    assert own.module[1].num_batches_tracked == 4
