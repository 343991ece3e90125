"""Evaluations for tests, made of counts."""

from __future__ import annotations

from cars_hw.config.evaluation import Evaluation


def evaluation(images: tuple[int, ...], right: tuple[int, ...], evaluated: str = "some images") -> Evaluation:
    """Return an evaluation with these counts.

    A wrong answer is the next class, and the first images of each class are the right ones, class after class.
    """
    classes = range(len(images))
    confusion = tuple(
        tuple(
            right[row] if column == row else images[row] - right[row] if column == (row + 1) % len(images) else 0
            for column in classes
        )
        for row in classes
    )
    bits = "".join("1" * right[row] + "0" * (images[row] - right[row]) for row in classes)
    size = -(-len(bits) // 8)
    correct = (int(bits, 2) << (8 * size - len(bits))).to_bytes(size).hex()
    return Evaluation(images, right, confusion, correct, evaluated)
