"""``search --within`` and ``search --from-run`` as a user gives them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from invoked import done, fails, run
from PIL import Image

from cars_hw.config.toml import read_settings
from cars_hw.evolution.passes import JudgedImages

# Imported before its functions are replaced: it keeps its own.
from cars_hw.pipeline import estimate  # noqa: F401
from cars_hw.pipeline.pace import FinalPace, Pace, StepSeconds
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.search_cost import MeanAdds
from cars_hw.pipeline.settings import SearchSettings

NETWORK = ("--channels", "4", "--layers", "3", "--resolution", "8", "--in-channels", "1", "--classes", "2")
SEARCH = ("search", "--cost", "parameters", "--batch-size", "8", "--on", "cpu", *NETWORK)
SHORT = ("--population", "4", "--epochs", "2", "--warmup-epochs", "1")


def pace_of(seconds: float) -> Pace:
    """The pace of a machine that takes ``seconds`` for anything; an epoch has three steps."""
    final = FinalPace(seconds, passes=1000, side=1, adds=MeanAdds(1, 1, 1), batches=3)
    steps = StepSeconds(seconds, seconds, seconds, 0)
    return Pace(steps, seconds, seconds, 3, JudgedImages(24, 6, 6), False, final, 100, False)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("length") / "images"
    for name, shade in (("dark", 20), ("light", 220)):
        (folder / name).mkdir(parents=True)
        for number in range(24):
            Image.new("L", (8, 8), shade + number).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that takes a second for each step and each evaluation."""
    monkeypatch.setattr("cars_hw.pipeline.pace.measure_pace", lambda *_, **__: pace_of(1.0))


# The shortest search: 5 epochs of 3 steps, 2 x 8 x 4 evaluations and 24 of finalists; and a tenth in reserve.
SHORTEST = 15 + 64 + 24


@pytest.mark.usefixtures("slow")
def test_a_time_chooses_the_length_and_the_run_keeps_it(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    within = (*SEARCH, "--data", images, "--final", "0", "--within", f"{SHORTEST / 0.9 + 1:.0f}s")
    told = done(*within, "--out", out)
    assert "5 epochs, of which 1 warm-up, 4 generations of 1 epoch, population 8, no final stage." in told.stderr
    assert "Estimated: 1 min 43 s (warm-up 3 s, generations 1 min 16 s, finalists 24 s)" in told.stderr
    settings = read_settings(out / "config.toml", SearchSettings)
    assert (settings["evolution"]["epochs"], settings["evolution"]["population"]) == (5, 8)
    assert "within" not in (out / "config.toml").read_text()
    about = RunFolder.open(out).about
    assert about.time is not None
    assert about.time.stages.total == SHORTEST
    assert about.chosen == tuple(
        f"evolution.{name}" for name in ("population", "epochs", "warmup_epochs", "epochs_per_generation")
    )
    # Another machine: what was chosen stays, and the finished run is as it was.
    monkeypatch.setattr("cars_hw.pipeline.pace.measure_pace", lambda *_, **__: pace_of(0.01))
    (out / "front.json").unlink()
    done(*within, "--out", out, "--resume")
    assert len(RunFolder.open(out).history()) == 4
    fails(run(*within, "--out", out, "--resume", "--epochs", "9"), 1, "evolution.epochs = 5, not 9")


@pytest.mark.usefixtures("slow")
def test_what_cannot_fit_or_has_nothing_to_choose_is_refused(images: Path, tmp_path: Path) -> None:
    asked = (*SEARCH, "--data", images, "--out", tmp_path / "run")
    fails(run(*asked, "--within", "1min"), 1, "takes about 1 min 43 s", "--within 2min or more")
    given = (*SHORT, "--epochs-per-generation", "1", "--final", "0")
    fails(run(*asked, "--within", "1h", *given), 1, "nothing to choose")
    told = run(*asked, "--within", "soon")
    assert told.exit_code == 2
    assert "write it with its units, such as 3h, 90min or 2h30m" in told.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("slow")
def test_a_dry_run_shows_the_choice(images: Path, tmp_path: Path) -> None:
    asked = (*SEARCH, "--data", images, "--within", "20min", "--population", "10", "--dry-run")
    told = done(*asked)
    assert "population 10" in told.stderr
    assert "finalists evaluated on all validation images" in told.stdout
    found = json.loads(done(*asked, "--json").stdout)
    assert found["evolution"]["population"] == 10
    assert sum(found["stages"].values()) == pytest.approx(found["seconds"])
    assert found["seconds"] <= 0.9 * 1200
    # More than the 16 epochs of the preset, as the number of epochs is what is chosen.
    for given in (("--warmup-epochs", "20"), ("--epochs-per-generation", "18")):
        told = done(*SEARCH, "--data", images, "--within", "2h", "--population", "8", *given, "--dry-run", "--json")
        chosen = json.loads(told.stdout)["evolution"]
        assert str(chosen[given[0][2:].replace("-", "_")]) == given[1]
        assert chosen["epochs"] >= chosen["warmup_epochs"] + 4 * chosen["epochs_per_generation"]
        # The same in a configuration file.
        file = tmp_path / "given.toml"
        file.write_text(f"[evolution]\n{given[0][2:].replace('-', '_')} = {given[1]}\npopulation = 8\n")
        told = done(*SEARCH, "--data", images, "--within", "2h", "--config", file, "--dry-run", "--json")
        assert json.loads(told.stdout)["evolution"] == chosen
        fails(
            run(*SEARCH, "--data", images, "--config", file, "--dry-run"), 2, "leave no generation", "give at least"
        )
    fails(run(*SEARCH, "--data", images, "--warmup-epochs", "20", "--dry-run"), 1, "leave no generation after 20")


def test_a_search_from_an_earlier_run(images: Path, tmp_path: Path) -> None:
    asked = (*SEARCH, "--data", images)
    done(*asked, *SHORT, "--out", tmp_path / "old")
    told = done(*asked, *SHORT, "--out", tmp_path / "old", "--resume", "--within", "1h")
    assert "began without --within, and keeps its length" in told.stderr
    again = ("--from-run", tmp_path / "old", "--out", tmp_path / "new", "--population", "4")
    told = done(*asked, *again)
    assert "6 epochs instead of 16, 0 epochs of warm-up instead of 5, a learning rate of 0.01 " in told.stderr
    assert "100.0% of the weights are taken" in told.stderr
    run_folder = RunFolder.open(tmp_path / "new")
    assert len(run_folder.history()) == 6
    # Fewer epochs than the warm-up of the preset.
    told = done(*asked, "--from-run", tmp_path / "old", "--population", "2", "--epochs", "1", "--dry-run", "--json")
    evolution = json.loads(told.stdout)["evolution"]
    assert (evolution["epochs"], evolution["warmup_epochs"]) == (1, 0)
    file = tmp_path / "short.toml"
    file.write_text("[evolution]\nepochs = 1\npopulation = 2\n")
    again_json = done(*asked, "--from-run", tmp_path / "old", "--config", file, "--dry-run", "--json").stdout
    assert json.loads(again_json)["evolution"] == evolution
    assert "trained weights: 0 epochs of warm-up, a learning rate of 0.01 instead of 0.05." in told.stderr
    settings = read_settings(tmp_path / "new" / "config.toml", SearchSettings)
    assert (settings["from_run"], settings["evolution"]["epochs"]) == (str(tmp_path / "old"), 6)
    assert settings["training"]["learning_rate"] == pytest.approx(0.01)
    fails(run(*asked, "--warmup-epochs", "0", "--dry-run"), 1, "needs a warm-up")
    done("report", tmp_path / "new")
    assert "The search started from the shared weights of" in run_folder.report.read_text()
    done("search", "--config", tmp_path / "new" / "config.toml", "--out", tmp_path / "again")
    assert RunFolder.open(tmp_path / "again").front() == run_folder.front()
    fails(run("baselines", tmp_path / "new", "--seeds", "1"), 1, "started from the weights of")
    fails(run(*asked, *again, "--baselines", "1"), 2, "--from-run")
    other = ("--from-run", tmp_path / "old", "--seed", "1")
    for last in (("--out", tmp_path / "other"), ("--dry-run",)):
        fails(run(*asked, *other, *last), 1, "divided the same images in another way (seed 0)", "give --seed 0")
    fails(run(*asked, "--from-run", tmp_path, "--dry-run"), 1, "is not a run folder")
