"""Reads TensorBoard's files by the format alone, sums included; nothing of what wrote them is used."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

Scalars = dict[str, list[tuple[int, float]]]


def scalars(folder: Path) -> Scalars:
    """Return (step, value) of every scalar by its name, in the order of the files and within them."""
    found: Scalars = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for event in records(path.read_bytes()):
            fields = list(parse(event))
            step = next((value for number, value in fields if number == 2), 0)
            for summary in (value for number, value in fields if number == 5):
                for _, value in parse(summary):
                    entry = dict(parse(value))
                    figure = struct.unpack("<f", entry[2])[0] if 2 in entry else 0.0
                    found.setdefault(entry[1].decode(), []).append((step, figure))
    return found


def records(data: bytes) -> Iterator[bytes]:
    """Yield the events of a file; what a kill cut off at its end is not one."""
    start = 0
    while start < len(data):
        head, (length,) = data[start : start + 8], struct.unpack("<Q", data[start : start + 8])
        event = data[start + 12 : start + 12 + length]
        sums = data[start + 8 : start + 12], data[start + 12 + length : start + 16 + length]
        if len(sums[1]) < 4:
            return
        for text, kept in zip((head, event), sums, strict=True):
            assert struct.unpack("<I", kept)[0] == masked(crc32c(text))
        yield event
        start += 16 + length


def parse(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and value of the fields of a protobuf message: an int, or bytes."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        number, kind = divmod(varint(), 8)
        if kind == 0:
            yield number, varint()
            continue
        size = {1: 8, 5: 4}[kind] if kind in (1, 5) else varint()
        yield number, message[at : at + size]
        at += size


def crc32c(data: bytes) -> int:
    """Return the sum of Castagnoli's polynomial, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(crc: int) -> int:
    """Return the sum as the format keeps it: turned by fifteen bits, and a constant added."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
