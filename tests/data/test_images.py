"""Image files as pixels: each kind of file by the stated rules, against values that are computed here."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from cars_hw.data.images import read_image
from cars_hw.errors import DatasetError

Array = npt.NDArray[np.uint8]
Deep = npt.NDArray[np.uint16]

GREY_16: Deep = (np.arange(12, dtype=np.uint32) * 5957 % 65536).astype(np.uint16).reshape(3, 4)
RGB_16: Deep = (np.arange(36, dtype=np.uint32) * 40503 % 65536).astype(np.uint16).reshape(3, 4, 3)
RGB: Array = (np.arange(36) * 37 % 256).astype(np.uint8).reshape(3, 4, 3)


def png_16(pixels: Deep) -> bytes:
    """Return a PNG file with 16 bits a channel, which Pillow does not write for colours."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = pixels.shape[:2]
    colour = {2: 0, 3: 2}[pixels.ndim]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff_16(pixels: Deep, order: str) -> bytes:
    """Return an uncompressed TIFF file with 16 bits a channel, in the byte order ``<`` or ``>``."""
    height, width, channels = (*pixels.shape, 1)[:3]
    data = pixels.astype(f"{order}u2").tobytes()
    tags = [
        (256, 3, 1, width),
        (257, 3, 1, height),
        (258, 3, channels, 16 if channels == 1 else 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1 if channels == 1 else 2),
        (273, 4, 1, 0),
        (277, 3, 1, channels),
        (278, 3, 1, height),
        (279, 4, 1, len(data)),
    ]
    bits = struct.pack(f"{order}{channels}H", *[16] * channels)
    directory_at = 8 + len(bits) + len(bits) % 2
    data_at = directory_at + 2 + 12 * len(tags) + 4
    entries = b""
    for tag, kind, count, value in tags:
        content = data_at if tag == 273 else value
        packed = (
            struct.pack(f"{order}HH", content, 0) if kind == 3 and count == 1 else struct.pack(f"{order}I", content)
        )
        entries += struct.pack(f"{order}HHI", tag, kind, count) + packed
    return (
        (b"II" if order == "<" else b"MM")
        + struct.pack(f"{order}HI", 42, directory_at)
        + bits
        + struct.pack(f"{order}H", len(tags))
        + entries
        + bytes(4)
        + data
    )


def read(tmp_path: Path, name: str, content: bytes, channels: int) -> Array:
    (tmp_path / name).write_bytes(content)
    return read_image(tmp_path / name, channels, (3, 4))


@pytest.mark.parametrize("kind", ["png", "tif<", "tif>", "pgm"])
def test_the_high_byte_of_16_bits_of_grey_is_read(tmp_path: Path, kind: str) -> None:
    content = {
        "png": png_16(GREY_16),
        "tif<": tiff_16(GREY_16, "<"),
        "tif>": tiff_16(GREY_16, ">"),
        "pgm": b"P5 4 3 65535\n" + GREY_16.astype(">u2").tobytes(),
    }[kind]
    expected = (GREY_16 >> 8).astype(np.uint8)
    assert np.array_equal(read(tmp_path, f"a.{kind[:3]}", content, 1)[:, :, 0], expected)
    # Grey is the same in all three channels of a colour image.
    coloured = read(tmp_path, f"b.{kind[:3]}", content, 3)
    assert np.array_equal(coloured, np.repeat(expected[:, :, None], 3, axis=2))


@pytest.mark.parametrize("kind", ["png", "tif<", "tif>"])
def test_the_high_byte_of_16_bits_of_rgb_is_read(tmp_path: Path, kind: str) -> None:
    content = png_16(RGB_16) if kind == "png" else tiff_16(RGB_16, kind[3])
    assert np.array_equal(read(tmp_path, f"a.{kind[:3]}", content, 3), (RGB_16 >> 8).astype(np.uint8))


def test_rgb_of_16_bits_in_a_ppm_file_is_rounded_by_pillow(tmp_path: Path) -> None:
    pixels = read(tmp_path, "a.ppm", b"P6 4 3 65535\n" + RGB_16.astype(">u2").tobytes(), 3)
    assert np.array_equal(pixels, np.round(RGB_16 / 65535 * 255).astype(np.uint8))


@pytest.mark.parametrize(("mode", "value"), [("I", 70_000), ("F", 0.5)])
def test_pixels_of_32_bits_are_refused(tmp_path: Path, mode: str, value: float) -> None:
    Image.new(mode, (4, 3), value).save(tmp_path / "a.tif")
    with pytest.raises(DatasetError, match=rf"a\.tif has pixels of mode {mode}; save it as grey or RGB of 8 or 16"):
        read_image(tmp_path / "a.tif", 1, (3, 4))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_orientation_is_turned_upright(tmp_path: Path, orientation: int) -> None:
    turned = {
        1: RGB,
        2: RGB[:, ::-1],
        3: RGB[::-1, ::-1],
        4: RGB[::-1],
        5: RGB.transpose(1, 0, 2),
        6: np.rot90(RGB, -1),
        7: RGB[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(RGB, 1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png", 3, turned.shape[:2]), turned)


def test_a_palette_is_looked_up_and_transparency_dropped(tmp_path: Path) -> None:
    colours = RGB.reshape(-1, 3)
    image = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4), "L").convert("L")
    palette = Image.new("P", (4, 3))
    palette.putdata(list(image.get_flattened_data() if hasattr(image, "get_flattened_data") else image.getdata()))
    palette.putpalette(colours.flatten().tolist())
    palette.save(tmp_path / "a.png", transparency=bytes([0, 128, 255] * 4))
    assert np.array_equal(read_image(tmp_path / "a.png", 3, (3, 4)), RGB)


def test_alpha_is_dropped_and_the_colour_below_kept(tmp_path: Path) -> None:
    Image.fromarray(np.dstack([RGB, np.zeros((3, 4), np.uint8)])).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png", 3, (3, 4)), RGB)


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    inks = np.dstack([RGB, np.full((3, 4), 40, np.uint8)]).astype(int)
    Image.fromarray(inks.astype(np.uint8), "CMYK").save(tmp_path / "a.tif")
    expected = (255 - inks[:, :, :3]) * (255 - inks[:, :, 3:]) / 255
    assert np.abs(read_image(tmp_path / "a.tif", 3, (3, 4)) - expected).max() <= 1


def test_the_first_image_of_an_animation_is_read(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((3, 4), value, np.uint8)) for value in (10, 200)]
    for name in ("a.gif", "a.webp", "a.tiff", "a.png"):
        options = {"lossless": True} if name.endswith("webp") else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        assert read_image(tmp_path / name, 1, (3, 4)).tolist() == [[[10]] * 4] * 3


def test_colours_become_grey_by_luma(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    expected = RGB @ np.array([0.299, 0.587, 0.114])
    assert np.abs(read_image(tmp_path / "a.png", 1, (3, 4))[:, :, 0] - expected).max() <= 1


def test_a_damaged_file_of_any_kind_is_one_line(tmp_path: Path) -> None:
    """Bytes are changed and cut off at many places: an image is read, or the error names the file."""
    random = np.random.default_rng(3)
    exif = Image.Exif()
    exif[0x0112] = 6
    for suffix in ("png", "jpg", "gif", "tif", "webp", "bmp", "ppm"):
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(RGB).save(path, **({"exif": exif} if suffix in ("jpg", "png", "webp") else {}))
        whole = path.read_bytes()
        refused = 0
        for _ in range(40):
            content = bytearray(whole[: int(random.integers(0, len(whole)))] if random.random() < 0.5 else whole)
            for place in random.integers(0, max(1, len(content)), 3):
                if content:
                    content[place] = int(random.integers(0, 256))
            path.write_bytes(content)
            try:
                assert read_image(path, 3, (3, 4)).shape == (3, 4, 3)
            except DatasetError as error:
                refused += 1
                assert str(path) in str(error)
                assert "\n" not in str(error)
        assert refused > 5, suffix
