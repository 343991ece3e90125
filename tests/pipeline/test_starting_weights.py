"""``train --init``: weights of the same genotype, with a fresh classifier for other classes; others are refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from frozen_data import freeze
from torchvision import models

from cars_hw.cli.main import main
from cars_hw.config.data import DataSource
from cars_hw.config.decoding import Decoding
from cars_hw.config.presets import PRESETS
from cars_hw.config.teacher import Teacher
from cars_hw.config.training import Recipe
from cars_hw.errors import InputError
from cars_hw.export.card import Preprocessing
from cars_hw.export.model import Model
from cars_hw.nn.network import Network
from cars_hw.pipeline import train
from cars_hw.pipeline.networks import FrontNetwork
from cars_hw.pipeline.plan import SearchPlan, configuration
from cars_hw.pipeline.records import RunAbout
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.settings import TrainSettings
from cars_hw.pipeline.starting_weights import StartingWeights
from cars_hw.pipeline.train import train_run
from cars_hw.pipeline.training_job import StartingFrom
from cars_hw.progress import no_log, silent
from cars_hw.space.architecture import Architecture
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace

SPEC = NetworkSpec(4, 3, (8, 8), 1, classes=3)
GENOTYPES = [SearchSpace().sample(np.random.default_rng(seed)) for seed in (2, 3)]


def model(path: Path, spec: NetworkSpec = SPEC, names: tuple[str, ...] = ("across", "along", "plain")) -> Path:
    """Write a model of the first genotype with random weights."""
    torch.manual_seed(5)
    colours = (0.5,) * spec.in_channels
    steps = Preprocessing(colours, colours, spec.resolution, Decoding.of(spec.in_channels))
    Model.of(Network(spec, GENOTYPES[0]), steps, names).save(path)
    return path


def fresh(auxiliary: bool = False) -> Network:
    torch.manual_seed(6)
    return Network(SPEC, GENOTYPES[0], auxiliary=auxiliary)


def test_all_weights_but_those_of_other_classes_are_copied(tmp_path: Path) -> None:
    same = StartingWeights.read(model(tmp_path / "same.safetensors"))
    network = fresh(auxiliary=True)
    assert same.give(network, ("across", "along", "plain"))
    own, given = network.state_dict(), same.model.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in given.items())
    five = model(tmp_path / "five.safetensors", replace(SPEC, classes=5, resolution=(16, 12)), tuple("vwxyz"))
    other = StartingWeights.read(five)
    other.require("net-1", Architecture(GENOTYPES[0], SPEC))
    network = fresh()
    assert not other.give(network, ("across", "along", "plain"))
    for name, value in network.state_dict().items():
        source = fresh() if name.startswith("classifier.") else other.model
        assert torch.equal(value, source.state_dict()[name])
    # Other names are other classes, also if there are as many.
    assert not same.give(fresh(), ("a", "b", "c"))


@pytest.fixture
def run(tmp_path: Path, images: Path) -> RunFolder:
    """A run whose search is said to have ended with two networks."""
    preset = replace(PRESETS["quick"], recipe=Recipe(epochs=1, batch_size=32, learning_rate=0.05))
    plan = SearchPlan(DataSource(str(images)), SPEC, preset, costs=("parameters",))
    run = RunFolder.create(tmp_path / "run", configuration(plan), RunAbout("", {}, 1))
    freeze(run, plan.data)
    run.write_front(
        [FrontNetwork(f"net-{n}", one, SPEC, n / 10, n, n, ()) for n, one in enumerate(GENOTYPES, start=1)]
    )
    return run


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"genotype": GENOTYPES[1]}, "has the weights of another genotype than net-2"),
        ({"genotype": GENOTYPES[0], "channels": 8}, r"of another size \(.*\) than genotype-"),
        ({"inherit": True}, "not both"),
        ({"init": Path("gone.safetensors")}, "gone.safetensors"),
    ],
)
def test_weights_that_do_not_fit_are_refused_before_the_training(
    run: RunFolder, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    settings = TrainSettings(init=model(tmp_path / "start.safetensors"), device="cpu", jobs=1)
    with pytest.raises(InputError, match=words) as caught:
        train_run(run, replace(settings, **changes), progress=silent)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert run.trained() == []


def test_images_of_other_channels_are_refused(tmp_path: Path) -> None:
    coloured = StartingWeights.read(model(tmp_path / "colour.safetensors", replace(SPEC, in_channels=3)))
    with pytest.raises(InputError, match="is for images of 3 channels; those of net-1 have 1"):
        coloured.require("net-1", Architecture(GENOTYPES[0], SPEC))


def test_a_training_says_what_it_starts_from_and_is_done_once(run: RunFolder, tmp_path: Path) -> None:
    start = model(tmp_path / "start.safetensors", names=("a", "b", "c"))
    command = ["train", str(run.path), "--init", str(start), "--on", "cpu", "--jobs", "1"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert "starts from the weights in" in result.output
    assert "with a fresh classifier" in result.output
    (trained,) = run.trained()
    # The genotype of the file is that of the first network.
    assert (trained.name, trained.init) == ("net-1", StartingWeights.read(start).digest)
    assert trained.teacher is None
    assert train_run(run, TrainSettings(init=start, device="cpu", jobs=1), progress=silent) == [trained]
    told: list[str] = []
    # The same network from fresh weights is another training.
    again = TrainSettings(genotype=GENOTYPES[0], device="cpu", jobs=1)
    (other,) = train_run(run, again, progress=silent, log=told.append)
    assert (other.name, other.init) == ("net-1@2", None)
    assert "other weights at the start" in told[0]


def test_the_record_of_a_training_has_absolute_paths(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model(tmp_path / "start.safetensors", names=("a", "b", "c"))
    weights = models.get_model("shufflenet_v2_x0_5", weights=None, num_classes=3).state_dict()
    torch.save(weights, tmp_path / "teacher.pt")
    monkeypatch.chdir(tmp_path)
    settings = TrainSettings(
        init=Path("start.safetensors"),
        teacher=Teacher("shufflenet_v2_x0_5", Path("teacher.pt"), resolution=(32, 32)),
        device="cpu",
        jobs=1,
    )
    train_run(run, settings, progress=silent, log=lambda _: None)
    kept = run.steps()[-1].settings
    assert kept["init"] == str(tmp_path / "start.safetensors")
    assert kept["teacher"]["weights"] == str(tmp_path / "teacher.pt")


def test_files_that_were_changed_since_the_command_began_are_refused(tmp_path: Path) -> None:
    start = model(tmp_path / "start.safetensors")
    weights = models.get_model("shufflenet_v2_x0_5", weights=None, num_classes=3).state_dict()
    torch.save(weights, tmp_path / "teacher.pt")
    teacher = Teacher("shufflenet_v2_x0_5", tmp_path / "teacher.pt", resolution=(32, 32))
    begun = StartingFrom.of(TrainSettings(init=start, teacher=teacher))
    read, taught = begun.read_weights(), begun.read_teacher()
    assert read is not None
    assert taught is not None
    assert (read.digest, taught.about) == (begun.init_digest, begun.teacher_about)
    model(start, replace(SPEC, channels=8))
    torch.save({name: value + 1 for name, value in weights.items()}, tmp_path / "teacher.pt")
    with pytest.raises(InputError, match=r"start\.safetensors was changed since the command began; run it again"):
        begun.read_weights()
    with pytest.raises(InputError, match=r"teacher\.pt were changed since the command began"):
        begun.read_teacher()


def test_a_number_of_networks_beside_weights_to_start_from_is_said_to_be_unused(
    run: RunFolder, tmp_path: Path
) -> None:
    start = model(tmp_path / "start.safetensors")
    told: dict[int, list[str]] = {2: [], 5: []}
    for top, lines in told.items():
        # Of too large a size, so that it ends before the training.
        settings = TrainSettings(init=start, top=top, channels=8, device="cpu", jobs=1)
        with pytest.raises(InputError, match="of another size"):
            train_run(run, settings, progress=silent, log=lines.append)
    assert any("the number of networks of the front is not used" in line for line in told[2])
    assert told[5] == []


def test_workers_decide_by_the_memory_of_the_machine_that_sends_them(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int | None] = []

    def spread(_work: object, jobs: Sequence[Any], *_: object, **__: object) -> None:
        sent.extend(job.data.memory for job in jobs)
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "spread", spread)
    monkeypatch.setattr(train, "memory_limit", lambda chosen: chosen or 12345)
    for data in (None, replace(run.training_data.source, memory=10**6)):
        with pytest.raises(KeyboardInterrupt):
            train_run(run, TrainSettings(top=2, device="cpu", jobs=2, data=data), progress=silent, log=no_log)
    assert sent == [12345] * 2 + [10**6] * 2
