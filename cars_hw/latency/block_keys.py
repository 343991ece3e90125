"""The op keys of networks of MobileNet-like blocks. A block that is left out has none."""

from __future__ import annotations

from collections.abc import Iterator

from cars_hw.latency.op_key import BLOCK, OpKey, PlacedKey
from cars_hw.space.blocks import BlockLayout, block_layouts, head_channels, stem_layouts
from cars_hw.space.families import SKIP
from cars_hw.space.genotype import Genotype, names_of
from cars_hw.space.network_spec import NetworkSpec


def block_key(layout: BlockLayout, name: str) -> OpKey | None:
    """Return the key of the choice ``name`` at ``layout``; None if the block is left out."""
    return None if name == SKIP else OpKey(f"{BLOCK}{name}", layout.source, layout.channels, layout.stride)


def every_block_key(spec: NetworkSpec) -> tuple[OpKey, ...]:
    """Return every key that any genotype under ``spec`` can need, each once, stem to head."""
    stem, head = chain_ends(spec)
    found = [block_key(layout, name) for layout in block_layouts(spec) for name in layout.choices]
    return tuple(dict.fromkeys((*stem, *(key for key in found if key is not None), *head)))


def block_keys(spec: NetworkSpec, genotype: Genotype) -> list[PlacedKey]:
    """Return what the network of ``genotype`` under ``spec`` runs, stem to head."""
    stem, head = chain_ends(spec)
    return [
        *(PlacedKey(key, None, "stem") for key in stem),
        *_of_blocks(spec, genotype),
        *(PlacedKey(key, None, "head") for key in head),
    ]


def _of_blocks(spec: NetworkSpec, genotype: Genotype) -> Iterator[PlacedKey]:
    for layout, name in zip(block_layouts(spec), names_of(genotype), strict=True):
        key = block_key(layout, name)
        if key is not None:
            yield PlacedKey(key, layout.position, "block")


def chain_ends(spec: NetworkSpec) -> tuple[list[OpKey], list[OpKey]]:
    """Return the keys before the first block of ``spec``, and those behind the last one."""
    stem = [
        OpKey("stem_conv" if number else "stem_image", layout.source, layout.channels, layout.stride)
        for number, layout in enumerate(stem_layouts(spec))
    ]
    last, features = block_layouts(spec)[-1].output, head_channels(spec)
    head = [
        OpKey("head_conv", last, features),
        OpKey("head", last._replace(channels=features), spec.classes),
    ]
    return stem, head
