"""What the report calls operations and the other parts of a network, and which of them share a colour."""

# ruff: noqa: RUF001, RUF003 -- people read 3×3 and not 3x3
from __future__ import annotations

from typing import Final, NamedTuple

from cars_hw.latency.op_key import block_choice
from cars_hw.space.operations import OPERATIONS


class Kind(NamedTuple):
    """What a kind of operation is called: in full, in a drawing, and which family has its colour."""

    title: str
    short: str
    family: str


FAMILIES: Final = {
    "separable": "separable convolution",
    "dilated": "dilated convolution",
    "dense": "dense convolution",
    "pooling": "pooling",
    "between": "between cells: preprocessing, strided skips",
    "elementwise": "ReLU, sums, concatenation",
    "ends": "stem and classifier",
    "rest": "constant cost of any network",
}
"""Families of operations, in the order in which they are stacked, with what they are called."""

_KINDS: Final = {
    "relu_conv_bn": Kind("preprocessing, 1×1", "1×1", "between"),
    "factorized_reduce": Kind("preprocessing, halving", "halve", "between"),
    "relu": Kind("ReLU", "relu", "elementwise"),
    "add": Kind("sum of two edges", "add", "elementwise"),
    "concat": Kind("concatenation", "concat", "elementwise"),
    "zeros": Kind("zeros of an empty node", "zeros", "elementwise"),
    "stem_cifar": Kind("stem", "stem", "ends"),
    "stem_half": Kind("stem", "stem", "ends"),
    "stem_quarter": Kind("stem, first half", "stem", "ends"),
    "stem_eighth": Kind("stem, second half", "stem", "ends"),
    "head": Kind("classifier", "head", "ends"),
    "stem_image": Kind("stem", "stem", "ends"),
    "stem_conv": Kind("stem, further convolutions", "stem", "ends"),
    "head_conv": Kind("convolution before the classifier", "1×1", "ends"),
}


def kind_of(operation: str) -> Kind:
    """Return what ``operation``, a candidate operation or a kind of op key, is called."""
    if operation in OPERATIONS:
        known = OPERATIONS[operation]
        return Kind(known.title, known.short, known.family)
    block = block_choice(operation)
    if block is not None:
        squeeze = ", squeeze" if block.squeeze else ""
        size = f"{block.kernel}×{block.kernel}"
        return Kind(f"block {size}, expansion {block.expansion}{squeeze}", size, "separable")
    return _KINDS.get(operation, Kind(operation, operation, "rest"))
