"""A search of MobileNet-like blocks from the table to the report, on tiny images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from invoked import done, fails, run
from long_runs import amount
from PIL import Image

import cars_hw
from cars_hw.space.genotype import BlockGenotype

NETWORK = ("--network", "tiny", "--channels", "4", "--layers", "3", "--resolution", "8", "--classes", "2")
BRIEF = (
    *("--population", "2", "--epochs", "2", "--warmup-epochs", "1", "--epochs-per-generation", "1"),
    *("--batch-size", "16", "--final", "0"),
)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for name, shade in (("dark", 20), ("light", 220)):
        (folder / name).mkdir()
        for number in range(30):
            Image.new("L", (8, 8), shade + number % 5).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mobile") / "table.json"
    done("profile", "--device", "fake", *NETWORK, "--family", "mobile", "--calibration", "4", "--out", path)
    return path


def test_from_the_table_to_the_report(table: Path, images: Path, tmp_path: Path) -> None:
    entries = json.loads(table.read_text(encoding="utf-8"))["entries"]
    # Each of the three blocks reads another shape, and has 18 choices.
    assert sum(name.startswith("block_") for name in entries) == 3 * 18
    folder = tmp_path / "run"
    limit = "0.2ms"
    searched = ("search", "--data", images, "--table", table, "--latency", limit, *BRIEF, "--out", folder)
    done(*searched)
    front = json.loads((folder / "front.json").read_text(encoding="utf-8"))["networks"]
    assert all(one["genotype"]["family"] == "mobile" for one in front)
    again = done(
        "search", "--data", images, "--table", table, "--latency", limit, *BRIEF, "--out", folder, "--resume"
    )
    assert "Next: cars-hw train" in again.output
    done("train", folder, "--epochs", "1", "--batch-size", "16", "--top", "1")
    # Each file is compared with the torch module when it is written.
    done("export", folder)
    assert {path.suffix for path in (folder / "models").iterdir()} == {".onnx", ".tflite", ".json"}
    done("report", folder)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Blocks of the network: 4 channels in the first" in page
    assert "by block" in page
    (weights,) = (folder / "trained").glob("*.safetensors")
    model = cars_hw.load_model(weights)
    assert isinstance(model.genotype, BlockGenotype)
    assert model(torch.zeros(1, 1, 8, 8)).shape == (1, 2)


def test_a_finished_profile_is_resumed(table: Path) -> None:
    before = table.read_bytes()
    profile = ("profile", "--device", "fake", *NETWORK, "--family", "mobile", "--calibration", "4", "--out", table)
    done(*profile, "--resume")
    assert table.read_bytes() == before


def test_a_prediction_is_only_for_genotypes_that_fit(table: Path) -> None:
    for blocks, message in (
        (["k3_e1"] * 4, "has 4 blocks and the network 3"),
        (["k3_e1", "skip", "k3_e1"], "block 2 begins a stage"),
    ):
        genotype = json.dumps({"family": "mobile", "blocks": blocks})
        fails(run("predict", "--table", table, genotype), 1, message)
    shown = done("predict", "--table", table, '{"family": "mobile", "blocks": ["skip", "k3_e1", "k5_e3"]}').output
    assert "blocks" in shown
    assert "cells" not in shown


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("search", *NETWORK, "--layers", "4..5", "--cost", "parameters"), 1, "one number of blocks, not 4 to 5"),
        (("profile", *NETWORK, "--layers", "4..5", "--device", "fake"), 1, "one number of blocks, not 4 to 5"),
        (("cost", *NETWORK, '{"family": "mobile", "blocks": ["k3_e1"]}'), 1, "has 1 blocks and the network 3"),
        (("cost", *NETWORK, "CARS_A"), 1, "the genotype has darts cells and the network mobile blocks"),
        (("cost", *NETWORK, "--family", "mobile+conv_1x1", "CARS_A"), 1, "no further operations"),
    ],
)
def test_what_blocks_do_not_support_is_an_error_of_one_line(
    arguments: tuple[str, ...], code: int, message: str, images: Path, tmp_path: Path
) -> None:
    further = {"search": ("--data", str(images)), "cost": ()}.get(arguments[0], ())
    out = () if arguments[0] == "cost" else ("--out", str(tmp_path / "made"))
    family = () if "--family" in arguments else ("--family", "mobile")
    fails(run(arguments[0], *family, *further, *out, *arguments[1:]), code, message)


@pytest.mark.parametrize("command", ["search", "experiment small-model-trap"])
def test_a_supernet_of_blocks_takes_no_number_of_its_own(command: str, images: Path, tmp_path: Path) -> None:
    config = tmp_path / "given.toml"
    arguments = ("--data", str(images), *NETWORK, "--family", "mobile", "--out", str(tmp_path / "made"))
    cost = ("--cost", "parameters")
    for layers, message in (
        (5, "supernet_layers = 5 is for cells: a SuperNet of blocks has the 3 blocks"),
        (3, ""),
    ):
        config.write_text(f"supernet_layers = {layers}\n", encoding="utf-8")
        if message:
            fails(run(*command.split(), "--config", config, *arguments, *cost), 2, message)
    assert not (tmp_path / "made").exists()
    # The number of the network itself is what there is, and that of a preset is for cells and not the user's.
    if command == "search":
        done("search", "--config", config, *arguments, *cost, "--dry-run")
        done("search", "--preset", "cifar", *arguments, *cost, *BRIEF, "--dry-run")


def test_shared_kernels_and_memory_as_a_cost(images: Path, tmp_path: Path) -> None:
    for share in ("kernels", "edges")[: amount(1, 2)]:
        done(
            *("search", "--data", images, *NETWORK, "--family", "mobile", *BRIEF, "--share", share),
            *("--cost", "peak-memory", "--cost", "file-size", "--out", tmp_path / share),
        )
