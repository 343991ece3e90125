"""Settings of training: of the weights that a search shares, and of a network that was chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from cars_hw.config.evaluation import Objective
from cars_hw.config.setting import Settings, setting

TrainingPrecision = Literal["auto", "float32", "bf16", "fp16"]

ClassWeights = Literal["none", "balanced"]
"""How much an image counts in the loss, by its class.

- ``none``: every image counts the same.
- ``balanced``: an image counts by the inverse of its class's number of training images, so that every class counts
  the same; the mean over all training images is 1 (King and Zeng, 2001).
"""

WeightSharing = Literal["edges", "nodes", "kernels"]
"""Which operations of a SuperNet share their weights.

- ``edges``: each operation on each edge has its own weights (CARS).
- ``nodes``: an operation has the same weights for all sources of a node.
- ``kernels``: in addition, a separable or dilated convolution of 3x3 has the weights of that of 5x5: the centres of
  its kernels and its pointwise convolutions (Stamoulis et al., Single-Path NAS, 2019).
"""

EvaluatedClassifier = Literal["shared", "probe", "untrained-probe"]
"""What classifies the images when architectures are evaluated in a search.

- ``shared``: the classifier of the SuperNet, which was trained for all architectures.
- ``probe``: a linear classifier for each architecture, fitted to its features.
- ``untrained-probe``: the same on untrained weights. No shared weights are trained.
"""

SharedPrecision = Literal["auto", "float32", "bf16"]
"""The precision of the activations of shared weights; the weights are in float32.

- ``auto``: ``bf16`` on a GPU that computes in it, ``float32`` elsewhere.
"""

StepReplay = Literal["auto", "off"]
"""Whether a training on a GPU records its work and replays it as a whole.

- ``auto``: where it can be recorded. A step of the training of a network can be in one process, and not in half
  precision; with shared weights, it is the pass of an architecture.
- ``off``: each operation is launched.
"""

PassReplay = Literal["auto", "blocks", "off"]
"""Whether the passes of architectures under shared weights are recorded on a GPU and replayed.

- ``auto``: from the second pass of an architecture on.
- ``blocks``: also the first one, which is put together from recordings of blocks, such as an operation on an edge.
- ``off``: each operation is launched.
"""

SizeSampling = Literal["drawn", "sandwich"]
"""What a step of a search over sizes trains.

- ``drawn``: the drawn architectures.
- ``sandwich``: also the genotype of the first drawn architecture at the largest and at the smallest size. All
  networks except the largest learn its outputs instead of the labels (Yu et al., BigNAS, 2020).
"""

_CROP = "Pixels of padding around an image, from which a crop of the image's size is taken at random."
_MIRROR = "Mirror every second training image, left to right; switch it off if left and right differ in meaning."
_WEIGHTS = (
    "How much an image counts in the loss. none: all images count the same; balanced: an image counts by the "
    "inverse of the number of training images of its class, so that all classes count the same."
)
_CUTOUT = "Side of the square that is cut out of an image, in pixels; 0: none."


@dataclass(frozen=True)
class SharedTraining(Settings):
    """How the shared weights are trained. The defaults are those of CARS, section 4.1, or else of DARTS.

    ``architectures`` is the B of Eq. 3, drawn for each minibatch. The learning rate falls from ``learning_rate``
    to ``learning_rate_min`` along a cosine, epoch by epoch. ``validation_fraction`` of the training images is
    used to evaluate architectures, unless the data have a validation part; a generation uses ``evaluation_images``
    of them (0: all). With a ``crop_padding`` of 0 images are not cropped, without ``mirror`` not mirrored.
    ``share`` says which operations share their weights. ``average`` is the decay per step of an exponential moving
    average of the shared weights, which then evaluates architectures (0: none). ``classifier`` says what classifies
    the images when architectures are evaluated. ``precision`` is that of activations. ``deterministic``
    algorithms make a training on a GPU repeatable. ``threads`` is the number of threads of a training
    step on a CPU. With 0, small activations have one, see :mod:`cars_hw.training.threads`, and larger ones have
    torch's own number. On small activations, a second thread makes a step about 10% faster, but about ten times
    slower if another process uses its core.

    Raises:
        InputError: a number is out of its bounds.
    """

    batch_size: int = setting(
        128, help="Images in a minibatch. The learning rate is not scaled automatically.", minimum=2
    )
    architectures: int = setting(
        1, help="Number of architectures that each minibatch trains (B of Eq. 3).", minimum=1
    )
    learning_rate: float = setting(0.025, help="Learning rate of the first epoch.", above=0)
    learning_rate_min: float = setting(0.001, help="Learning rate of the last epoch.", minimum=0)
    momentum: float = setting(0.9, help="Momentum of SGD.", minimum=0, below=1)
    weight_decay: float = setting(3e-4, help="Weight decay of SGD.", minimum=0)
    gradient_clip: float = setting(5.0, help="Largest norm of the gradient.", above=0)
    crop_padding: int = setting(4, help=_CROP, unit="pixels", minimum=0)
    cutout: int = setting(0, help=_CUTOUT, unit="pixels", minimum=0)
    mirror: bool = setting(True, help=_MIRROR, option="--mirror/--no-mirror")
    validation_fraction: float = setting(
        0.5, help="Share of the training images that evaluates architectures.", above=0, below=1
    )
    evaluation_images: int = setting(
        0, help="Validation images that evaluate architectures in a generation; 0: all.", minimum=0
    )
    evaluation_batch: int = setting(500, help="Images in a batch of an evaluation.", minimum=1)
    threads: int = setting(
        0,
        help="Threads of a training step on a CPU; 0: one where activations are small, and torch's own number for "
        "others.",
        minimum=0,
    )
    class_weights: ClassWeights = setting(
        "none", help=f"{_WEIGHTS} cars-hw train weighs the images in the same way."
    )
    size_sampling: SizeSampling = setting(
        "drawn",
        help="What a step of a search over sizes trains. drawn: the drawn architectures; sandwich: also the "
        "largest and the smallest size, and all other networks learn the outputs of the largest.",
    )
    share: WeightSharing = setting(
        "edges",
        help="Which operations of the SuperNet have the same weights. edges: none of them, as in the paper; nodes: "
        "an operation has the same weights for all inputs of a node; kernels: in addition, a 3x3 convolution has "
        "the centre of the kernels of the 5x5 convolution. If there are fewer weights, each is trained more often.",
    )
    average: float = setting(
        0.0,
        help="Evaluate architectures with a moving average of the shared weights, with this decay per step, such "
        "as 0.98; 0: with the present weights. A step counts for the weights that it trained.",
        minimum=0,
        below=1,
    )

    deterministic: bool = setting(
        False,
        help="Use algorithms on a GPU that add numbers in a fixed order, so that a search with the same seed on "
        "the same GPU has the same front. They are slower. A CPU always adds in a fixed order.",
        option="--deterministic/--no-deterministic",
    )

    classifier: EvaluatedClassifier = setting(
        "shared",
        help="What classifies the images when architectures are evaluated in the search. shared: the classifier "
        "of the SuperNet; probe: a linear classifier for each architecture (a linear probe), fitted to the "
        "features of the same images, each of which is classified by the others; untrained-probe: a linear probe "
        "on random weights. With untrained-probe no SuperNet is trained; give the final stage a large share, such "
        "as 0.75.",
    )

    precision: SharedPrecision = setting(
        "auto",
        help="Precision of the activations of the SuperNet, in training and evaluation; auto: bf16 on a GPU that "
        "computes in it, float32 elsewhere.",
    )

    ADDED: ClassVar = frozenset({"share", "average", "classifier", "deterministic", "precision"})

    @property
    def trains(self) -> bool:
        """Whether a search trains the weights: probes on untrained weights need no training."""
        return self.classifier != "untrained-probe"


@dataclass(frozen=True)
class Recipe(Settings):
    """How a chosen network is trained to the end; :mod:`cars_hw.config.recipes` has the published ones.

    The learning rate rises linearly over ``warmup_epochs`` and then falls to zero by ``schedule``, step by step;
    the schedule counts from the first epoch. ``auxiliary`` is the weight of the auxiliary head's loss (0: no
    such head). The probability of drop-path rises to ``drop_path`` at the last epoch. A ``crop_scale`` above 0
    replaces ``crop_padding``, images are not cropped where both are 0, and not mirrored without ``mirror``;
    :class:`~cars_hw.data.Augmentation` describes the augmentation. ``randaugment`` operations of the strength
    ``magnitude``, ``mixup`` and ``cutmix`` are those of torchvision; 0 is none.

    ``ema`` is the decay per step of an exponential moving average of the weights; the averaged weights
    are then evaluated and exported (0: none). ``hold_out`` is the share of the training images that is not trained
    on, and that chooses the best epoch by ``objective`` (0: the last epoch is taken); data with a validation part
    have the epoch chosen by that, and nothing is held out. ``class_weights`` are those of the loss. ``precision``
    is that of activations: see
    :func:`~cars_hw.training.precision.resolve_precision`.

    Raises:
        InputError: a number is out of its bounds.
    """

    epochs: int = setting(help="Passes over the training images.", unit="epochs", minimum=1)
    batch_size: int = setting(
        96, help="Images in a step. The learning rate is not scaled automatically.", minimum=2
    )
    learning_rate: float = setting(0.025, help="The largest learning rate of the schedule.", above=0)
    momentum: float = setting(0.9, help="Momentum of SGD.", minimum=0, below=1)
    weight_decay: float = setting(3e-4, help="Weight decay of SGD.", minimum=0)
    gradient_clip: float = setting(5.0, help="Largest norm of the gradient.", above=0)
    warmup_epochs: float = setting(
        0.0, help="Epochs in which the learning rate rises linearly.", unit="epochs", minimum=0
    )
    auxiliary: float = setting(0.0, help="Weight of the auxiliary head's loss; 0: no such head.", minimum=0)
    drop_path: float = setting(
        0.0, help="Probability of drop-path that is reached at the last epoch.", minimum=0, below=1
    )
    label_smoothing: float = setting(0.0, help="Share of the label that is smoothed away.", minimum=0, below=1)
    crop_padding: int = setting(4, help=_CROP, unit="pixels", minimum=0)
    cutout: int = setting(0, help=_CUTOUT, unit="pixels", minimum=0)
    mirror: bool = setting(True, help=_MIRROR, option="--mirror/--no-mirror")
    schedule: Literal["cosine", "linear"] = setting("cosine", help="How the learning rate falls.")
    crop_scale: float = setting(
        0.0, help="Least share of an image's area that a random crop keeps; 0: no such crop.", minimum=0, maximum=1
    )
    colour_jitter: float = setting(
        0.0, help="How far brightness, contrast and saturation vary, a fraction.", minimum=0, maximum=1
    )
    ema: float = setting(
        0.0,
        help="Export a moving average of the weights with this decay per step, such as 0.9999; 0: none.",
        minimum=0,
        below=1,
    )
    hold_out: float = setting(
        0.0,
        help="Share of the training images that is held out to choose the best epoch; 0: use the last epoch.",
        minimum=0,
        maximum=0.5,
    )
    precision: TrainingPrecision = setting(
        "auto",
        help="Precision of activations in training; auto: bf16 or else fp16 on a GPU, float32 on a CPU.",
        option="--training-precision",
    )
    objective: Objective = setting(
        "accuracy",
        help="The accuracy that chooses the best epoch on the held-out images. balanced-accuracy is the mean of "
        "the accuracies on the images of each class.",
    )
    class_weights: ClassWeights = setting("none", help=_WEIGHTS)
    randaugment: int = setting(
        0,
        help="Random operations on each training image (RandAugment), such as 2; 0: none. Cropping and mirroring "
        "are separate settings.",
        minimum=0,
        maximum=20,
    )
    magnitude: int = setting(
        9, help="How strong the operations of --randaugment are, 0 to 30.", minimum=0, maximum=30
    )
    mixup: float = setting(
        0.0,
        help="Mix each training image with another one of its batch (mixup); the parameter of the beta "
        "distribution of their shares, such as 0.2; 0: none.",
        minimum=0,
        maximum=100,
    )
    cutmix: float = setting(
        0.0,
        help="Put a rectangle of another image of its batch into each training image (CutMix); the parameter of "
        "the beta distribution of its area, such as 1; 0: none. With --mixup, each batch has one of the two.",
        minimum=0,
        maximum=100,
    )

    ADDED: ClassVar = frozenset({"randaugment", "magnitude", "mixup", "cutmix"})

    def rate(self, epoch: float) -> float:
        """Return the learning rate at ``epoch``, a step's share of it included: 0 at the beginning."""
        if epoch < self.warmup_epochs:
            # A step at a rate of exactly zero would be a step for nothing.
            return self.learning_rate * (epoch + 1e-3) / self.warmup_epochs
        position = min(epoch / self.epochs, 1.0)
        if self.schedule == "linear":
            return self.learning_rate * (1 - position)
        return cosine(position, self.learning_rate, 0.0)


def cosine(position: float, start: float, end: float) -> float:
    """Return the value at ``position`` (0 to 1) of a half cosine from ``start`` to ``end``."""
    return end + (start - end) * (1 + math.cos(math.pi * min(max(position, 0.0), 1.0))) / 2
