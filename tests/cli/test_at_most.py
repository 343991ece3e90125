"""A build fails if a model is too slow: ``predict --at-most``, and the example of a workflow."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from invoked import done, fails, run

from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices import FakeDevice
from cars_hw.export.card import ModelCard, Preprocessing, card_path
from cars_hw.export.model import Model
from cars_hw.latency import LatencyTable, profile_device
from cars_hw.nn.fresh_weights import seeded
from cars_hw.nn.network import Network
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.zoo import resolve_genotype

SPEC = NetworkSpec(4, 3, (8, 8), 1, classes=2)
WORKFLOW = Path(__file__).resolve().parent.parent.parent / "examples" / "latency-budget" / "latency-budget.yml"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository as the workflow wants it: a table, and two models with their cards."""
    folder = tmp_path_factory.mktemp("repository")
    (folder / "tables").mkdir()
    (folder / "models").mkdir()
    profile_device(
        FakeDevice(), SPEC, calibration=6, out=folder / "tables" / "phone.json", plan=MeasurePlan(sessions=1)
    )
    for name in ("CARS_A", "CARS_I"):
        genotype = resolve_genotype(name)
        network = seeded(lambda of=genotype: Network(SPEC, of, auxiliary=False), name)
        steps = Preprocessing.of((0.5,), (0.5,), SPEC.resolution)
        Model.of(network, steps, ("dark", "light")).export(folder / "models" / f"{name}.tflite")
    return folder


def bounds(table: Path, *networks: str | Path) -> dict[str, float]:
    found = json.loads(done("predict", "--table", table, *networks, "--json").stdout)
    return {one["name"]: one["bound_ms"] for one in found}


def test_the_exit_code_says_whether_every_network_keeps_to_the_latency(repository: Path) -> None:
    table, models = repository / "tables" / "phone.json", repository / "models"
    by_name = bounds(table, "CARS_A", "CARS_I")
    low, high = sorted(by_name.values())
    assert low < high
    # The card of a model has its genotype and its size.
    assert bounds(table, *sorted(models.glob("*.tflite"))) == by_name
    done("predict", "--table", table, "--at-most", f"{high}ms", "CARS_A", models / "CARS_I.tflite")
    between = f"{(low + high) / 2}ms"
    (over,) = [name for name, ms in by_name.items() if ms == high]
    failed = run("predict", "--table", table, "--at-most", between, "CARS_A", "CARS_I")
    fails(failed, 3, "the upper bound of the latency on fake is above", f"{over} (")
    # The figures are printed all the same.
    assert "CARS_A" in failed.stdout
    failed = run("predict", "--table", table, "--at-most", between, "CARS_A", "CARS_I", "--json")
    assert {one["name"]: one["within_budget"] for one in json.loads(failed.stdout)} == {
        name: ms == low for name, ms in by_name.items()
    }
    assert {one["limit_ms"] for one in json.loads(failed.stdout)} == {float(between.removesuffix("ms"))}
    # The bound counts, not the prediction below it.
    (record,) = json.loads(done("predict", "--table", table, over, "--json").stdout)
    assert record["ms"] < record["bound_ms"]
    fails(run("predict", "--table", table, "--at-most", f"{record['ms']}ms", over), 3, over)


def test_what_cannot_be_compared_is_refused(repository: Path, tmp_path: Path) -> None:
    table, model = repository / "tables" / "phone.json", repository / "models" / "CARS_A.tflite"
    fails(run("predict", "--table", table, "--at-most", "1ms"), 2, "give a GENOTYPE or a MODEL")
    fails(run("predict", "--table", table, "--channels", "8", model), 2, "CARS_A is a model of one size")
    # What a build can lack, and what it can damage, is no error of usage.
    for command in (
        ("--table", table, tmp_path / "gone.onnx"),
        ("--table", tmp_path / "gone.json", model),
    ):
        missing = run("predict", *command)
        fails(missing, 1, "gone.")
        assert "Usage:" not in missing.stderr
    bare = tmp_path / "bare.tflite"
    bare.write_bytes(model.read_bytes())
    fails(run("predict", "--table", table, bare), 1, "bare.tflite.json")
    fails(run("predict", "--table", table, "CARS_Z"), 2, "CARS_Z")
    other = tmp_path / "CARS_A.tflite"
    other.write_bytes(model.read_bytes())
    card = ModelCard.read(card_path(model))
    replace(card, precision="int8", int8="asymmetric").write(card_path(other))
    fails(run("predict", "--table", table, other), 1, "CARS_A is a model of int8", "is for fp32")
    int8 = tmp_path / "int8.json"
    replace(LatencyTable.read(table), precision="int8").write(int8)
    done("predict", "--table", int8, other)
    replace(card, precision="int8", int8="symmetric").write(card_path(other))
    fails(run("predict", "--table", int8, other), 1, "CARS_A is a symmetric model", "is for asymmetric ones")
    other.write_bytes(model.read_bytes()[:-1])
    fails(run("predict", "--table", table, other), 1, "was changed or damaged")


def commands(workflow: Path) -> Iterator[list[str]]:
    """Yield the words of the commands of cars-hw in a workflow."""
    for line in re.findall(r"^ *run: (cars-hw .*)$", workflow.read_text(encoding="utf-8"), flags=re.MULTILINE):
        yield shlex.split(line.partition(" > ")[0])[1:]


def test_the_workflow_of_the_example_passes_and_fails_as_it_says(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    table = LatencyTable.read(Path("tables/phone.json"))
    found = [
        [one for word in words for one in (sorted(map(str, Path().glob(word))) if "*" in word else [word])]
        for words in commands(WORKFLOW)
    ]
    assert len(found) == 2
    assert all(words[-2:] == ["models/CARS_A.tflite", "models/CARS_I.tflite"] for words in found)
    # Twenty milliseconds are plenty for these networks.
    assert max(network.measured.ms for network in table.calibration) < 20
    for words in found:
        done(*words)
    budget = min(bounds(Path("tables/phone.json"), "CARS_A", "CARS_I").values()) / 2
    strict = [f"{budget}ms" if word == "20ms" else word for word in found[0]]
    fails(run(*strict), 3, "CARS_A", "CARS_I")
