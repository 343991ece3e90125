"""Files of a run that are not as they were written: each is refused by name, and never half-believed."""

from __future__ import annotations

import io
import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from click.testing import CliRunner
from finished_run import files_of, make, outcome, read_files, reader_of
from long_runs import amount
from published_schemas import require_file

from cars_hw.cli.main import main
from cars_hw.config.checksummed import checksum
from cars_hw.config.data import DataSource
from cars_hw.errors import RunError, TrainingError
from cars_hw.evolution import checkpoint
from cars_hw.evolution.search import Search
from cars_hw.export.card import card_path
from cars_hw.latency import LatencyTable
from cars_hw.pipeline.export import export_run
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.settings import TrainSettings
from cars_hw.pipeline.train import train_run
from cars_hw.pipeline.trained_weights import load_trained
from cars_hw.space.zoo import zoo

FLIPS = amount(40, 500)
MUTATIONS = amount(20, 2000)
BAD_FILES = amount(12, 150)
JSON = (".json", ".jsonl")


@pytest.fixture(scope="module")
def finished(tiny_table: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run with every kind of file; to be read only."""
    return make(LatencyTable.read(tiny_table), images, tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture
def run(finished: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of it."""
    shutil.copytree(finished.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def test_every_file_of_a_run_has_a_reader(finished: RunFolder) -> None:
    names = read_files(finished)
    kinds = {Path(name).name for name in names}
    assert {"run.json", "config.toml", "front.json", "search.pt", "verified.json", "ranking.json"} <= kinds
    assert any(name.endswith(".last.safetensors") for name in names)
    assert any(name.startswith("checkpoint/train-") for name in names)
    for name in names:
        read = reader_of(finished, name)
        assert read is not None, f"{name} has no reader that verifies it"
        _, problem = outcome(read)
        assert problem is None


def test_every_json_file_of_a_run_fits_its_published_schema(finished: RunFolder) -> None:
    found = {require_file(finished.path / name) for name in files_of(finished.path) if Path(name).suffix in JSON}
    assert found >= {
        *("run", "data", "data-changes", "steps", "history", "final", "front", "trained", "verified", "study"),
        *("card", "table"),
    }


def test_a_flipped_bit_is_refused_by_name_or_changes_nothing(run: RunFolder) -> None:
    rng = random.Random(0)
    names = read_files(run)
    expected = {name: outcome(reader_of(run, name))[0] for name in names}  # type: ignore[arg-type]
    refused = 0
    for number in range(FLIPS):
        name = names[number % len(names)]
        path = run.path / name
        before = path.read_bytes()
        place, bit = rng.randrange(len(before)), rng.randrange(8)
        changed = bytearray(before)
        changed[place] ^= 1 << bit
        path.write_bytes(changed)
        found, problem = outcome(reader_of(run, name))  # type: ignore[arg-type]
        if problem is None:
            assert found == expected[name], f"bit {bit} of byte {place} of {name}"
        else:
            refused += 1
            assert str(path) in problem, problem
            assert "\n" not in problem
        path.write_bytes(before)
    # Nearly all bits are read: what is left are comments and the spaces of JSON.
    assert refused > 0.9 * FLIPS


@pytest.mark.parametrize("kind", ["front.json", "history.jsonl", "verified.json", "steps.jsonl", "run.json"])
@pytest.mark.parametrize("content", ["{}", "[]", "null", ""])
def test_an_empty_record_is_no_record(run: RunFolder, kind: str, content: str) -> None:
    (run.path / kind).write_text(content)
    read = reader_of(run, kind)
    assert read is not None
    _, problem = outcome(read)
    assert problem is not None
    assert kind in problem


def test_lines_that_are_missing_are_noticed(run: RunFolder) -> None:
    for name in ("history.jsonl", "steps.jsonl"):
        path = run.path / name
        lines = path.read_text().splitlines(keepends=True)
        assert len(lines) >= 3
        for changed in (lines[:-1], lines[:1], [lines[0], *lines[2:]], [lines[0], lines[2], lines[1], *lines[3:]]):
            path.write_text("".join(changed))
            read = reader_of(run, name)
            assert read is not None
            _, problem = outcome(read)
            assert problem is not None
            assert "changed or damaged" in problem
        path.write_text("".join(lines))


# What a leaf may turn into: other types, numbers out of all bounds, and names that lead out of the run, into the
# terminal or into a shell.
VALUES: list[Any] = [
    None, True, False, -1, 0, 1, 7, 2**31, 10**30, -0.5, 0.5, 1e-300, 1e30, 1e308, "", "x", "../../escaped",
    "/tmp/escaped", "a\x1b[31mb", "[red]x[/red]", "; touch escaped", "$(touch escaped)", "a\u202eb", "a\nb", [], {},
    [[]], [None], {"a": 1}, ["x"], "net-01", "\x00",
]  # fmt: skip
DEEP = "@@deep@@"


def leaves(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of all leaves, of all objects and of all lists in ``value``."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for name, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(one, (*path, name))


def mutate(value: Any, rng: random.Random) -> str:  # noqa: ANN401 -- whatever a file holds
    """Change one leaf of ``value`` and say how."""
    # Every depth is equally likely: a table has thousands of figures.
    by_depth: dict[int, list[tuple[Any, ...]]] = {}
    for path in leaves(value):
        by_depth.setdefault(len(path), []).append(path)
    path = rng.choice(by_depth[rng.choice(sorted(by_depth))])
    holder = value
    for name in path[:-1]:
        holder = holder[name]
    how = rng.choice(["value"] * 8 + ["missing", "more", "deep"])
    if how == "missing":
        del holder[path[-1]]
    elif how == "more" and isinstance(holder, dict):
        holder["more"] = rng.choice(VALUES)
    elif how == "deep":
        holder[path[-1]] = DEEP
    else:
        how = repr(rng.choice(VALUES))
        holder[path[-1]] = eval(how)  # noqa: S307 -- its own text: a copy
    return f"{path}: {how}"


def rewritten(path: Path, rng: random.Random) -> str:
    """Change one leaf of the JSON file ``path`` under a checksum that is right, and say which."""
    text = path.read_text()
    if path.suffix == ".jsonl":
        head, *lines = [json.loads(line) for line in text.splitlines()]
        how = mutate(lines, rng)
        head = {**head, "lines": len(lines), "checksum": checksum({"lines": lines})}
        text = "".join(json.dumps(line) + "\n" for line in (head, *lines))
    else:
        content = json.loads(text)
        del content["checksum"]
        kept = {name: content.pop(name) for name in ("format", "version")}
        how = mutate(content, rng)
        content = {**kept, **content}
        text = json.dumps({**content, "checksum": checksum(content)})
    depth = 100_000
    path.write_text(text.replace(json.dumps(DEEP), "[" * depth + "]" * depth))
    return how


def commands_for(run: RunFolder, name: str, images: Path) -> list[list[str]]:
    """Return the commands that read the file ``name`` of ``run``."""
    report = ["report", str(run.path)]
    verify = ["verify", str(run.path), "--device", "fake", "--sessions", "1", "--patience", "0"]
    export = ["export", str(run.path), "--format", "onnx"]
    train = ["train", str(run.path), "--top", "1", "--jobs", "1", "--on", "cpu"]
    if name.startswith("models/"):
        model = run.path / name.removesuffix(".json")
        return [report, verify, ["classify", str(model), str(images / "plain" / "1.png")]]
    if name.startswith("trained/"):
        return [report, train, export]
    if name.startswith("tables/"):
        return [report, verify, export]
    return {
        "run.json": [report, train, export, verify],
        "data.json": [report, train, export],
        "target-data.json": [report, train, export],
        "front.json": [report, train],
        "history.jsonl": [report],
        "steps.jsonl": [report, verify],
        "verified.json": [report, verify],
    }.get(name, [report])


@pytest.fixture
def without_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a training end where it begins: what it would have to read has been read by then."""

    def train(*_arguments: object, **_options: object) -> None:
        raise TrainingError("trained")

    monkeypatch.setattr("cars_hw.pipeline.network_training.train_network", train)


def require_one_line(command: list[str], how: str) -> int:
    """Run ``command``: it succeeds, or fails with one line; return its exit code."""
    result = CliRunner().invoke(main, command, catch_exceptions=True)
    about = f"{command}, {how}: {result.output[-300:]}"
    assert result.exception is None or isinstance(result.exception, SystemExit), (
        f"{about}\n{type(result.exception)}: {result.exception}"
    )
    assert "Traceback" not in result.output, about
    if result.exit_code not in (0, 3):
        errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
        assert len(errors) == 1, about
    assert not set(result.output) & {"\x1b", "\x00", "\u202e"}, about
    return result.exit_code


@pytest.mark.usefixtures("without_training")
def test_a_changed_leaf_under_a_right_checksum_is_one_line(
    finished: RunFolder, images: Path, tmp_path: Path
) -> None:
    rng = random.Random(1)
    names = [name for name in read_files(finished) if name.endswith((".json", ".jsonl")) and name.count("/") < 2]
    names = [name for name in names if not name.startswith("ranking/")]
    around = sorted(path.name for path in tmp_path.iterdir())
    refused = 0
    for number in range(MUTATIONS):
        run = RunFolder(tmp_path / "run")
        shutil.copytree(finished.path, run.path)
        name = names[number % len(names)]
        how = f"{number}: {name}, {rewritten(run.path / name, rng)}"
        refused += require_one_line(rng.choice(commands_for(run, name, images)), how) != 0
        written = set(files_of(run.path)) - set(files_of(finished.path))
        assert not any("escaped" in one for one in written), how
        shutil.rmtree(run.path)
        assert sorted(path.name for path in tmp_path.iterdir()) == around, how
    # Some changes give a record that is as good, such as another accuracy.
    assert refused > MUTATIONS // 2


def bad_files(names: list[str], rng: random.Random) -> Iterator[tuple[str, str, Callable[[Path], object]]]:
    """Yield a file, what becomes of it, and the function that does it."""
    makers: dict[str, Callable[[Path], object]] = {
        "empty": lambda path: path.write_bytes(b""),
        "truncated": lambda path: path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size - 1)]),
        "noise": lambda path: path.write_bytes(rng.randbytes(1000)),
        "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
        "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
        "twice": lambda path: path.write_bytes(path.read_bytes() * 2),
        "utf-16": lambda path: path.write_bytes("{}".encode("utf-16")),
        "deep": lambda path: path.write_text("[" * 200_000),
        "NaN": lambda path: path.write_text('{"format": NaN}'),
        "huge number": lambda path: path.write_text('{"version": ' + "9" * 5000 + "}"),
        "infinite": lambda path: path.write_text('{"format": "cars-hw front", "version": 3, "networks": 1e999}'),
        "half a character": lambda path: path.write_text('{"format": "\\ud800"}'),
        "gone": lambda path: path.unlink(),
        "folder": lambda path: (path.unlink(), path.mkdir()),
        "link to itself": lambda path: (path.unlink(), path.symlink_to(path.name)),
    }
    pairs = [(name, kind) for name in names for kind in makers]
    rng.shuffle(pairs)
    for name, kind in pairs:
        yield name, kind, makers[kind]


def test_a_forged_state_of_a_search_that_is_nested_deeply_is_one_line() -> None:
    forged = io.BytesIO()
    torch.save({"search": "[" * 100_000, "weights": {}}, forged)
    with pytest.raises(
        RunError, match=r"^cannot use the checkpoint: its state is not JSON: it is nested too deeply"
    ):
        checkpoint.restore(Mock(spec=Search), forged.getvalue())


@pytest.mark.usefixtures("without_training")
def test_a_file_that_is_something_else_is_one_line(finished: RunFolder, images: Path, tmp_path: Path) -> None:
    rng = random.Random(2)
    names = [name for name in read_files(finished) if not name.startswith(("ranking/", "baselines/"))]
    tried = 0
    for name, kind, make_bad in bad_files(names, rng):
        if tried == BAD_FILES:
            break
        run = RunFolder(tmp_path / "run")
        shutil.copytree(finished.path, run.path)
        make_bad(run.path / name)
        require_one_line(rng.choice(commands_for(run, name, images)), f"{name}: {kind}")
        read = reader_of(run, name)
        assert read is not None
        # Settings by hand have no checksum, and may be none at all.
        by_hand = name == "config.toml" and kind in ("empty", "truncated")
        if kind not in ("gone", "folder", "link to itself") and not by_hand:
            _, problem = outcome(read)
            assert problem is not None, f"{name}: {kind}"
            assert Path(name).name in problem
        shutil.rmtree(run.path)
        tried += 1
    assert tried == BAD_FILES


def test_a_run_of_an_older_version_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text('{"schema": 2, "configuration": {}}')
    result = CliRunner().invoke(main, ["report", str(tmp_path / "run")])
    assert result.exit_code == 1
    assert "was made by an older cars-hw" in result.stderr
    assert "search again" in result.stderr


def test_an_export_replaces_only_models_of_its_own_networks(run: RunFolder, images: Path, tmp_path: Path) -> None:
    data = DataSource(str(images))
    shutil.copytree(run.path, tmp_path / "other")
    for out in (tmp_path / "other" / "models", tmp_path / "other" / "deep" / "er"):
        with pytest.raises(RunError, match=r"is in the run .*other, whose models are of other networks"):
            export_run(run, data=data, formats=["onnx"], out=out)
    out = tmp_path / "out"
    first, *_ = export_run(run, data=data, formats=["onnx"], out=out)
    before = first.path.read_bytes()
    assert export_run(run, data=data, formats=["onnx"], out=out)[0].path == first.path
    assert first.path.read_bytes() == before
    other = replace(first.card, genotype=zoo()["CARS_A"].genotype)
    assert other.genotype != first.card.genotype
    other.write(card_path(first.path))
    with pytest.raises(RunError, match="exists and is no model of this network"):
        export_run(run, data=data, formats=["onnx"], out=out)
    card_path(first.path).unlink()
    first.path.write_bytes(b"precious")
    with pytest.raises(RunError, match="exists and is no model of this network"):
        export_run(run, data=data, formats=["onnx"], out=out)
    assert first.path.read_bytes() == b"precious"


def test_damaged_weights_are_trained_again_and_named(run: RunFolder, images: Path) -> None:
    settings = TrainSettings(DataSource(str(images)), top=2, jobs=1)
    trained = run.trained()[0]
    path = run.weights_path(trained.name)
    before = path.read_bytes()
    path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    with pytest.raises(RunError, match=rf"{path.name} was changed or damaged after it was written"):
        load_trained(run, trained)
    said: list[str] = []
    again = train_run(run, settings, log=said.append)
    assert path.read_bytes() == before
    assert replace(again[0], last_weights_digest=trained.last_weights_digest) == trained
    assert said[0].endswith("the network is trained again")
