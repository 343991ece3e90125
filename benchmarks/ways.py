"""What cars-hw's speed is held against: the DARTS way, and the plain way of running shared weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from cars_hw.data import DataBundle, Dataset
from cars_hw.nn.layers import Depthwise, DilatedDepthwise, FactorizedReduce
from cars_hw.nn.network import run_stem
from cars_hw.nn.supernet import SuperCell, SuperNet
from cars_hw.space.families import FAMILIES
from cars_hw.space.genotype import NODES, Genotype

EDGES = NODES * (NODES + 3) // 2
NAMES = FAMILIES["darts"].operations


class DartsWay(nn.Module):
    """The weights of a SuperNet, all operations on all edges."""

    def __init__(self, supernet: SuperNet) -> None:
        super().__init__()
        self.spec = supernet.spec
        self.supernet = copy.deepcopy(supernet).to(memory_format=torch.contiguous_format)
        _use_plain_modules(self.supernet)
        # One row a kind of cell, as in DARTS: all normal cells share theirs, and so do the reductions.
        self.alphas = nn.Parameter(1e-3 * torch.randn(2, EDGES, len(NAMES)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, classes) of the mixture of all architectures."""
        weights = self.alphas.softmax(dim=-1)
        before, last = run_stem(self.supernet.stem, x)
        for index, cell in enumerate(self.supernet.cells):
            reduction = index in self.spec.reductions
            before, last = last, _run_mixed(cell, before, last, weights[int(reduction)], reduction)
        return self.supernet.classifier(last.mean(dim=(2, 3)))


def _run_mixed(cell: SuperCell, before: Tensor, last: Tensor, weights: Tensor, reduction: bool) -> Tensor:
    states = [cell.preprocess_0(before), cell.preprocess_1(last)]
    edges = iter(weights)
    for node in range(NODES):
        mixed = [
            _mix(cell, (node, source), states[source], next(edges), 2 if reduction and source < 2 else 1)
            for source in range(node + 2)
        ]
        states.append(sum(mixed[1:], start=mixed[0]))
    return torch.cat(states[2:], dim=1)


def _mix(cell: SuperCell, edge: tuple[int, int], state: Tensor, weights: Tensor, stride: int) -> Tensor:
    values = []
    for name, weight in zip(NAMES, weights, strict=True):
        if name == "none":
            values.append(weight * state[:, :, ::stride, ::stride].mul(0.0))
        else:
            values.append(weight * cell.operation(*edge, name)(state))
    return sum(values[1:], start=values[0])


class _PlainReduce(nn.Module):
    """FactorizedReduce as DARTS writes it."""

    def __init__(self, reduce: FactorizedReduce) -> None:
        super().__init__()
        self.conv_1, self.conv_2, self.bn = reduce.conv_1, reduce.conv_2, reduce.bn

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        return self.bn(torch.cat((self.conv_1(x), self.conv_2(x[:, :, 1:, 1:])), dim=1))


def _use_plain_modules(module: nn.Module) -> None:
    """Replace every module that cars_hw computes in its own way by PyTorch's, with the same weights."""
    for name, child in module.named_children():
        if isinstance(child, Depthwise | DilatedDepthwise):
            plain = nn.Conv2d(
                child.in_channels,
                child.out_channels,
                child.kernel_size,
                child.stride,
                child.padding,
                child.dilation,
                child.groups,
                bias=False,
            )
            plain.weight = child.weight
            setattr(module, name, plain)
        elif isinstance(child, FactorizedReduce):
            setattr(module, name, _PlainReduce(child))
        else:
            _use_plain_modules(child)


class PlainImages(TorchDataset[tuple[Tensor, int]]):
    """Images as they are usually loaded: one at a time, varied and normalised in a worker process."""

    def __init__(self, data: Dataset, bundle: DataBundle, *, varied: bool) -> None:
        self.images, self.labels, self.varied = data.images, data.labels.tolist(), varied
        self.mean, self.std = (torch.tensor(values).view(-1, 1, 1) for values in (bundle.mean, bundle.std))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.images[index].float() / 255
        if self.varied:
            size = image.shape[-1]
            padded = F.pad(image, (4, 4, 4, 4))
            row, column = torch.randint(9, (2,)).tolist()
            image = padded[:, row : row + size, column : column + size]
            if torch.rand(()) < 0.5:
                image = image.flip(2)
        return (image - self.mean) / self.std, self.labels[index]


class PlainWay:
    """One architecture at a time: NCHW, float32, PyTorch's own modules, worker processes, an optimiser of all."""

    def __init__(
        self, supernet: SuperNet, bundle: DataBundle, batch: int, evaluated: Dataset, evaluate_batch: int
    ) -> None:
        self.device = next(supernet.parameters()).device
        self.supernet = copy.deepcopy(supernet).to(memory_format=torch.contiguous_format)
        _use_plain_modules(self.supernet)
        self.optimiser = torch.optim.SGD(self.supernet.parameters(), lr=0.025, momentum=0.9, weight_decay=3e-4)
        self.training = DataLoader(
            PlainImages(bundle.train, bundle, varied=True),
            batch,
            shuffle=True,
            drop_last=True,
            num_workers=2,
            persistent_workers=True,
        )
        self.evaluating = DataLoader(
            PlainImages(evaluated, bundle, varied=False), evaluate_batch, num_workers=2, persistent_workers=True
        )

    def forward(self, images: Tensor, genotype: Genotype) -> Tensor:
        """Return the logits of one architecture, in the same modules as the DARTS way has."""
        before, last = run_stem(self.supernet.stem, images)
        for index, cell in enumerate(self.supernet.cells):
            states: list[Tensor | None] = [cell.preprocess_0(before), cell.preprocess_1(last)]
            for number, node in enumerate(genotype.cell(index in self.supernet.spec.reductions)):
                real = [edge for edge in node if edge.is_real]
                values = [cell.operation(number, edge.source, edge.operation)(states[edge.source]) for edge in real]
                states.append(sum(values[1:], start=values[0]) if values else None)
            present = next(state for state in states[2:] if state is not None)
            out = torch.cat([torch.zeros_like(present) if one is None else one for one in states[2:]], dim=1)
            before, last = last, out
        return self.supernet.classifier(last.mean(dim=(2, 3)))

    def step(self, images: Tensor, labels: Tensor, genotype: Genotype) -> float:
        """Take one step as it is written everywhere, the loss read after each."""
        self.optimiser.zero_grad()
        loss = F.cross_entropy(self.forward(images, genotype), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(self.supernet.parameters(), 5.0)
        self.optimiser.step()
        return loss.item()

    def train(self, genotypes: Iterator[Genotype], steps: int) -> None:
        """Take so many steps on loaded images."""
        done = 0
        while done < steps:
            for images, labels in self.training:
                self.step(images.to(self.device), labels.to(self.device), next(genotypes))
                done += 1
                if done == steps:
                    break

    @torch.no_grad()
    def evaluate(self, genotypes: Sequence[Genotype]) -> list[float]:
        """Return the accuracies, one architecture after the other over the loaded images."""
        accuracies = []
        for genotype in genotypes:
            right = total = 0
            for images, labels in self.evaluating:
                hits = self.forward(images.to(self.device), genotype).argmax(dim=1) == labels.to(self.device)
                right += hits.sum().item()
                total += len(labels)
            accuracies.append(right / total)
        return accuracies


def without_gradients(forward: Callable[[], object]) -> Callable[[], object]:
    """Return ``forward`` as it runs when nothing is trained."""

    def run() -> None:
        with torch.inference_mode():
            forward()

    return run
