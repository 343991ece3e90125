from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cars_hw.data import load_data, mixed_order, stratified_split


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class_sizes = st.lists(st.integers(1, 40), min_size=1, max_size=6)
part_weights = st.lists(st.integers(0, 20), min_size=1, max_size=4)


def labels_of(sizes: list[int]) -> torch.Tensor:
    return torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))


@settings(max_examples=50, deadline=None)
@given(class_sizes, part_weights, st.integers(0, 10), st.integers(0, 99))
def test_parts_are_disjoint_and_stratified_within_one_image(
    sizes: list[int], weights: list[int], unused: int, seed: int
) -> None:
    total = max(sum(weights) + unused, 1)
    fractions = [weight / total for weight in weights]
    labels = labels_of(sizes)

    parts = stratified_split(labels, fractions, generator(seed))

    together = torch.cat(parts)
    assert len(together.unique()) == len(together)
    for label, size in enumerate(sizes):
        for part, fraction in zip(parts, fractions, strict=True):
            assert abs(int((labels[part] == label).sum()) - size * fraction) < 1
    if sum(weights) == total:
        assert sorted(together.tolist()) == list(range(len(labels)))


@pytest.mark.parametrize(
    ("size", "fractions", "expected"),
    [
        (10, [0.5, 0.5], [5, 5]),
        (7, [0.5, 0.5], [4, 3]),
        (5, [1 / 3, 1 / 3, 1 / 3], [2, 2, 1]),
        (10, [0.16, 0.28], [2, 3]),  # quotas 1.6, 2.8 and 5.6 for the rest, which gets 5: its remainder ties
        (50, [0.93, 0.07], [47, 3]),  # 46.5 and 3.5, not 3.5000000000000004
        (3, [0.0, 1.0], [0, 3]),
    ],
)
def test_division_by_largest_remainder(size: int, fractions: list[float], expected: list[int]) -> None:
    parts = stratified_split(torch.zeros(size, dtype=torch.int64), fractions, generator())
    assert [len(part) for part in parts] == expected


def test_a_part_is_mixed_and_random() -> None:
    labels = labels_of([500, 500])
    (part,) = stratified_split(labels, [0.5], generator())
    assert 80 <= int((labels[part[:250]] == 0).sum()) <= 170
    assert sorted(part[labels[part] == 0].tolist()) != list(range(250))


def test_the_seed_decides_the_split() -> None:
    labels = labels_of([30, 30])
    first, again, other = (stratified_split(labels, [0.5], generator(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_no_images_and_no_fractions_are_no_special_case() -> None:
    assert stratified_split(labels_of([3]), [], generator()) == []
    (empty,) = stratified_split(torch.empty(0, dtype=torch.int64), [0.5], generator())
    assert empty.dtype == torch.int64
    assert len(empty) == 0


@pytest.mark.parametrize("fractions", [[0.6, 0.5], [-0.1, 0.5], [math.nan], [math.inf]])
def test_impossible_fractions_are_refused(fractions: list[float]) -> None:
    with pytest.raises(ValueError, match="fractions"):
        stratified_split(torch.zeros(10, dtype=torch.int64), fractions, generator())


@settings(max_examples=50, deadline=None)
@given(class_sizes, st.integers(0, 99))
def test_every_prefix_of_a_mixed_order_has_every_share(sizes: list[int], seed: int) -> None:
    labels = labels_of(sizes)
    order = mixed_order(labels, generator(seed))
    assert sorted(order.tolist()) == list(range(len(labels)))
    # Up to a place t in [0, 1] a class has had its n times t images, give or take one. That makes t itself
    # uncertain by one image a class.
    slack = len(sizes) / len(labels)
    for label, size in enumerate(sizes):
        for length in range(1, len(labels) + 1):
            seen = int((labels[order[:length]] == label).sum())
            assert abs(seen - size * length / len(labels)) <= 1 + size * slack + 1e-9


def test_every_window_of_the_embedded_test_set_holds_every_class() -> None:
    labels = load_data("fashion-mini").test.labels
    mixed = labels[mixed_order(labels, generator())]
    counts = torch.stack([torch.bincount(window, minlength=10) for window in mixed.unfold(0, 100, 1)])
    assert counts.min() >= 7
    assert counts.max() <= 13


def test_a_sorted_set_is_mixed_at_random() -> None:
    labels = labels_of([100] * 10)
    first, again, other = (mixed_order(labels, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    # Neither the images of a class nor the classes follow each other in a fixed pattern.
    assert first[labels[first] == 0].tolist() != sorted(first[labels[first] == 0].tolist())
    assert labels[first[:10]].tolist() != labels[first[10:20]].tolist()
