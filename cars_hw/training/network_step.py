"""One step of the training of a network: forward and backward pass, clipping, and the optimiser.

On a GPU, a step of a network of 20 cells is about ten thousand launches of a few microseconds each, which take the
host longer than the GPU needs for the work. So the whole step is recorded and replayed, see
:mod:`cars_hw.training.recorder`. What changes between steps is on the device: the images, the learning rate, the
probability of drop-path, and the state of the random numbers, which a graph reads at every replay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.func import functional_call

from cars_hw.config.training import Recipe, StepReplay
from cars_hw.nn.network import Network
from cars_hw.progress import Log, no_log
from cars_hw.training.losses import cross_entropy, mixed_cross_entropy
from cars_hw.training.memory import is_out_of_memory
from cars_hw.training.moving_average import MovingAverage
from cars_hw.training.precision import autocast, resolve_precision
from cars_hw.training.process_group import SINGLE_PROCESS, ProcessGroup
from cars_hw.training.recorder import CudaRecorder, Recorder, Replay, one_line

STEPS_BEFORE_REPLAYS: Final = 2
"""Steps of the same size until the next is replayed: the first makes the optimiser's state, the second records."""

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Stepping:
    """How steps are run, which does not change what they compute, but for the rounding if they are ``compiled``.

    With ``replay`` "auto", a GPU records a step and replays it; "off" never does. ``compiled`` forward and backward
    passes are those of torch.compile.
    """

    replay: StepReplay = "auto"
    compiled: bool = False


class NetworkStep:
    """Steps of the training of ``network``, in place, by ``recipe`` on ``device``.

    ``class_weights`` are those of the loss, on the device, and ``averaged`` is the moving average to move.
    ``new_recorder`` makes what records a step; the default is that of CUDA graphs on a GPU. Steps are not recorded
    if several processes share them, or in half precision, which decides after the backward pass whether it counts.
    ``log`` tells if a step cannot be recorded or compiled; the steps are then run one operation after the other.
    """

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        device: torch.device,
        *,
        class_weights: Tensor | None = None,
        averaged: MovingAverage | None = None,
        process_group: ProcessGroup = SINGLE_PROCESS,
        stepping: Stepping = Stepping(),
        new_recorder: Callable[[], Recorder] | None = None,
        log: Log = no_log,
    ) -> None:
        self.network = network
        self.recipe = recipe
        self.device = device
        self.precision = resolve_precision(recipe.precision, device)
        self.class_weights = class_weights
        self.averaged = averaged
        self.process_group = process_group
        self.log = log
        if new_recorder is None and device.type == "cuda":
            new_recorder = _CudaRecorders(device)
        can_record = process_group.world == 1 and self.precision != "fp16" and stepping.replay == "auto"
        self._new_recorder = new_recorder if can_record else None
        self._passes: nn.Module = _Passes(network)
        self._compiled: Callable[..., Any] | None = None
        if stepping.compiled:
            # With the random numbers of PyTorch, by which drop-path drops the same paths.
            self._compiled = torch.compile(self._passes, options={"fallback_random": True})
        self._compiled_sizes: set[object] = set()
        self._drop_path = torch.zeros((), device=device)
        # In place of a number, which would be part of a recording.
        self._rate = torch.tensor(recipe.learning_rate, device=device)
        self.optimizer = torch.optim.SGD(
            network.parameters(),
            self._rate if self.records else recipe.learning_rate,
            recipe.momentum,
            weight_decay=recipe.weight_decay,
            # One kernel for many parameters, in place of one for each kind of work.
            fused=device.type == "cuda" or self.records,
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == "fp16")
        self._last_rate = recipe.learning_rate
        self._seen: tuple[object, ...] = ()
        self._steps_seen = 0
        self._recorded: _RecordedStep | None = None

    @property
    def records(self) -> bool:
        """Whether steps are recorded and replayed."""
        return self._new_recorder is not None

    @property
    def rate(self) -> float:
        """The learning rate of the last step."""
        return self._last_rate

    def begin_epoch(self, drop_path: float) -> None:
        """Set the probability that a path is dropped, for a :class:`Network`."""
        if isinstance(self.network, Network):
            self._drop_path.fill_(drop_path)
            self.network.drop_path = self._drop_path if self.recipe.drop_path > 0 else 0.0

    def end(self) -> None:
        """Drop the recording, and no path: the network may be moved to another device, or trained by others."""
        self.forget()
        if isinstance(self.network, Network):
            self.network.drop_path = 0.0

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the next steps."""
        # On the device it is a rounded one, for which a GPU would be waited for.
        self._last_rate = rate
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Take one step on a minibatch and return this process's part of the loss, detached.

        ``images`` are (N, C, H, W), and ``labels`` are classes (N,) or shares of them (N, classes).
        """
        if self._new_recorder is None:
            return self._eager(images, labels)
        size = (images.shape, labels.shape, labels.dtype)
        if self._recorded is not None and size == self._seen:
            return self._recorded.replayed(images, labels)
        # Only one size is recorded, that of all batches but the last: each recording has the memory of a step.
        self._seen = self._seen or size
        if size != self._seen:
            return self._with_own_leaves(images, labels)
        self._steps_seen += 1
        if self._steps_seen < STEPS_BEFORE_REPLAYS:
            return self._with_own_leaves(images, labels)
        return self._recording(images, labels, self._new_recorder())

    def forget(self) -> None:
        """Drop the recording, whose tensors are no longer those of the training."""
        self._recorded, self._seen, self._steps_seen = None, (), 0

    def state(self) -> dict[str, Any]:
        """Return the state of the optimiser and of the loss's scale."""
        optimizer = self.optimizer.state_dict()
        groups = [{**group, "lr": self.rate} for group in optimizer["param_groups"]]
        return {"optimizer": {**optimizer, "param_groups": groups}, "scaler": self.scaler.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the ``state`` of :meth:`state`."""
        (group,) = self.optimizer.param_groups
        # How the optimiser computes depends on the device and not on the saved state.
        own = {name: group[name] for name in ("fused", "lr")}
        self.optimizer.load_state_dict(state["optimizer"])
        (group,) = self.optimizer.param_groups
        rate = float(group["lr"])
        group.update(own)
        self.set_rate(rate)
        self.scaler.load_state_dict(state["scaler"])
        self.forget()

    def _eager(self, images: Tensor, labels: Tensor) -> Tensor:
        """Take a step as PyTorch runs it; several processes take it together."""
        process_group = self.process_group
        mine = slice(process_group.rank, None, process_group.world)
        # The sum over the processes is the mean over all images of the batch.
        share = len(labels[mine]) / len(labels)

        def passes(module: Callable[..., Any]) -> Tensor:
            self.optimizer.zero_grad(set_to_none=True)
            loss = self._loss(module, images[mine], labels[mine]) * share
            torch.autograd.backward(self.scaler.scale(loss))
            return loss.detach()

        loss = self._compiled_or_not(passes, images[mine])
        process_group.add_gradients(self.network.parameters())
        self._update()
        return loss

    def _with_own_leaves(self, images: Tensor, labels: Tensor) -> Tensor:
        """Take a step whose gradients are those of leaves of its own.

        Over the parameters, autograd would wait for the stream of an earlier backward pass. A recording must not.
        """
        names, parameters = zip(*self.network.named_parameters(prefix="network"), strict=True)
        leaves = [one.detach().requires_grad_(one.requires_grad) for one in parameters]
        trained = [number for number, one in enumerate(parameters) if one.requires_grad]

        def passes(module: Callable[..., Any]) -> Tensor:
            loss = self._loss(module, images, labels, dict(zip(names, leaves, strict=True)))
            found = torch.autograd.grad(loss, [leaves[number] for number in trained], allow_unused=True)
            for number, gradient in zip(trained, found, strict=True):
                parameters[number].grad = gradient
            return loss.detach()

        loss = self._compiled_or_not(passes, images)
        self._update()
        return loss

    def _compiled_or_not(self, passes: Callable[[Callable[..., Any]], Tensor], images: Tensor) -> Tensor:
        """Return what the forward and backward ``passes`` of ``images`` by the compiled network return.

        It is compiled when a size of ``images`` is new. If that fails, forward or backward, the network runs as it
        is from then on.
        """
        if self._compiled is None:
            return passes(self._passes)
        before = None if images.shape in self._compiled_sizes else _Before.of(self.network, self.device)
        try:
            loss = passes(self._compiled)
        except Exception as error:
            if not _is_of_compiler(error):
                raise
            self._compiled = None
            self.log(f"PyTorch cannot compile the network ({one_line(error)}): it runs as it is, which is slower")
            if before is not None:
                # The forward pass may have moved running averages, and dropped paths.
                before.restore()
        else:
            self._compiled_sizes.add(images.shape)
            return loss
        return passes(self._passes)

    def _update(self) -> None:
        """Clip the gradients, and take the optimiser's step."""
        for one in self.network.parameters():
            if one.grad is not None:
                one.grad = _laid_out_as(one.grad, one)
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.gradient_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.averaged is not None:
            self.averaged.update_parameters(self.network)

    def _loss(
        self, module: Callable[..., Any], images: Tensor, labels: Tensor, leaves: dict[str, Tensor] | None = None
    ) -> Tensor:
        with autocast(self.precision, self.device):
            logits, auxiliary = _called(module, leaves or {}, images)
            # Of mixed images and of a teacher, labels are shares of classes.
            entropy = mixed_cross_entropy if labels.is_floating_point() else cross_entropy
            loss = entropy(logits, labels, self.class_weights, self.recipe.label_smoothing)
            if auxiliary is not None:
                aside = entropy(auxiliary, labels, self.class_weights, self.recipe.label_smoothing)
                loss = loss + self.recipe.auxiliary * aside
        return loss

    def _recording(self, images: Tensor, labels: Tensor, recorder: Recorder) -> Tensor:
        """Take a step, and record it for the next ones."""
        recorded = _RecordedStep.of(images, labels)
        runs = 0

        def work() -> None:
            nonlocal runs
            loss = self._with_own_leaves(recorded.images, recorded.labels)
            recorded.loss.copy_(loss)
            runs += 1

        try:
            recorded.replay = recorder(work)
        except Exception as error:
            # The first run takes the step. What is refused is what comes after it, the recording.
            if not runs:
                raise
            self._new_recorder = None
            self.log(
                f"a step of the training cannot be recorded ({one_line(error)}): each of its operations is "
                "launched, which is slower"
            )
            return recorded.loss.clone()
        self._recorded = recorded
        return recorded.loss.clone()


@dataclass
class _RecordedStep:
    """A recorded step, which reads these images and labels and writes this loss."""

    images: Tensor
    labels: Tensor
    loss: Tensor
    replay: Replay

    @staticmethod
    def of(images: Tensor, labels: Tensor) -> _RecordedStep:
        """Return one that is to be recorded."""
        return _RecordedStep(images.clone(), labels.clone(), images.new_zeros(()), lambda: None)

    def replayed(self, images: Tensor, labels: Tensor) -> Tensor:
        """Take a step on a batch of the same size and return the loss."""
        self.images.copy_(images)
        self.labels.copy_(labels)
        self.replay()
        return self.loss.clone()


@dataclass
class _Before:
    """The buffers of a network and the random numbers before a step that may have to be begun again."""

    buffers: list[Tensor]
    values: list[Tensor]
    device: torch.device
    numbers: tuple[Tensor, Tensor | None]

    @staticmethod
    def of(network: nn.Module, device: torch.device) -> _Before:
        """Return those of the present moment."""
        on_gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        buffers = list(network.buffers())
        return _Before(buffers, [one.clone() for one in buffers], device, (torch.get_rng_state(), on_gpu))

    def restore(self) -> None:
        """Restore them."""
        with torch.no_grad():
            for one, value in zip(self.buffers, self.values, strict=True):
                one.copy_(value)
        own, on_gpu = self.numbers
        torch.set_rng_state(own)
        if on_gpu is not None:
            torch.cuda.set_rng_state(on_gpu, self.device)


class _CudaRecorders:
    """Makes recorders of CUDA graphs; each has a pool of memory of its own, which is free when it ends."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __call__(self) -> Recorder:
        return CudaRecorder(self._device)


class _Passes(nn.Module):
    """A network whose call returns the logits and those of its auxiliary head, None without one."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        if isinstance(self.network, Network):
            return self.network.forward_with_auxiliary(images)
        return self.network(images), None


def _called(module: Any, leaves: dict[str, Tensor], images: Tensor) -> Any:  # noqa: ANN401 -- of torch.compile
    """Return what ``module`` makes of ``images`` with ``leaves`` in place of its parameters."""
    if not leaves:
        return module(images)
    before = "_orig_mod." if hasattr(module, "_orig_mod") else ""
    return functional_call(module, {before + name: one for name, one in leaves.items()}, (images,))


def _laid_out_as(gradient: Tensor, parameter: Tensor) -> Tensor:
    """Return ``gradient`` with the strides of ``parameter``, which a fused optimiser requires."""
    wanted, own = parameter.stride(), gradient.stride()
    if wanted == own:
        return gradient
    # Those of sizes of 1, as in the weights of a 1x1 convolution, mean nothing.
    if all(size == 1 or one == other for size, one, other in zip(parameter.shape, own, wanted, strict=True)):
        return gradient.as_strided(parameter.shape, wanted)
    return torch.empty_like(parameter).copy_(gradient)


def _is_of_compiler(error: Exception) -> bool:
    """Return whether ``error`` is one of torch.compile, or of a compiler that it calls."""
    return not is_out_of_memory(error) and any(
        kind.__module__.startswith(("torch._dynamo", "torch._inductor", "torch._functorch", "triton"))
        for kind in type(error).__mro__
    )
