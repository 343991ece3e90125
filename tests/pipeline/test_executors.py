"""Executors: a front on two workers of each engine, one of them killed, and the loop that hands out tasks."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import pytest
from long_runs import amount
from work_of_executors import KillsItsWorker, kill_once

from cars_hw.config.data import DataSource
from cars_hw.config.execution import Execution
from cars_hw.config.presets import PRESETS
from cars_hw.config.search import EvolutionSettings, FinalSettings
from cars_hw.config.training import Recipe
from cars_hw.devices import FakeDevice
from cars_hw.errors import InputError, RunError, TableError
from cars_hw.executors import spread as spread_module
from cars_hw.executors.agent import perform
from cars_hw.executors.engine import Call, Outcome
from cars_hw.executors.messages import Beat, Caller, Messages, messages_path, tell
from cars_hw.executors.spread import Spread, spread
from cars_hw.executors.workers import side_by_side
from cars_hw.latency import LatencyTable
from cars_hw.pipeline import profile_devices as profile_devices_module
from cars_hw.pipeline.device_settings import ProfileSettings
from cars_hw.pipeline.plan import SearchPlan
from cars_hw.pipeline.profile_devices import profile_devices
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.search import run_search
from cars_hw.pipeline.settings import TrainSettings
from cars_hw.pipeline.train import train_run
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.version import own_version

PACKAGES = {"dask": "distributed", "ray": "ray", "submitit:local": "submitit"}


@pytest.fixture(scope="module")
def searched(images: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run whose front has two networks at least."""
    quick = PRESETS["quick"]
    preset = replace(
        quick,
        evolution=EvolutionSettings(4, epochs=2, warmup_epochs=1, epochs_per_generation=1, protection="size"),
        training=replace(quick.training, batch_size=64, evaluation_images=16),
        recipe=Recipe(epochs=3, batch_size=64, learning_rate=0.1, crop_padding=0),
        final=FinalSettings(0.0),
    )
    spec = NetworkSpec(4, 3, (8, 8), 1, classes=3)
    plan = SearchPlan(DataSource(str(images)), spec, preset, costs=("parameters",))
    return run_search(plan, tmp_path_factory.mktemp("searched") / "run", jobs=1)


def results(run: RunFolder) -> dict[str, str]:
    """Return the digests of what was trained, by the names of the files."""
    files = sorted((run.path / "trained").iterdir())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def copy_of(run: RunFolder, folder: Path) -> RunFolder:
    """Return a copy of ``run`` without what was trained."""
    shutil.copytree(run.path, folder / "run", ignore=shutil.ignore_patterns("trained"))
    return RunFolder.open(folder / "run")


@pytest.mark.parametrize("engine", [*(["local"] if amount(0, 1) else []), *PACKAGES])
def test_a_front_on_two_workers_one_of_them_killed_is_that_of_local_training(
    engine: str, searched: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine in PACKAGES and find_spec(PACKAGES[engine]) is None:
        pytest.skip(f"needs the package {PACKAGES[engine]}")
    settings = TrainSettings(top=2, device="cpu", jobs=2, execution=Execution(engine))
    plain = copy_of(searched, tmp_path / "plain")
    train_run(plain, replace(settings, jobs=1, execution=Execution()), log=print)
    monkeypatch.setenv("PYTHONPATH", ":".join([str(Path(__file__).parent), *sys.path]))
    run = copy_of(searched, tmp_path / "killed")
    if engine == "local":
        (tmp_path / "local").touch()
    told: list[str] = []
    seen: set[tuple[str, int, int]] = set()
    trained = train_run(
        run,
        settings,
        callback=partial(KillsItsWorker, tmp_path / "mark"),
        progress=lambda *step: seen.add(step),
        log=told.append,
    )
    assert (tmp_path / "mark").exists()
    assert results(run) == results(plain)
    assert {one.name for one in trained} >= {"net-01", "net-02"}
    assert sum("attempt 2 of 3" in line for line in told) == 1, told
    # The epoch that was finished is not trained again.
    assert any("resumes" in line for line in told), told
    assert {stage for stage, done, total in seen if done == total} >= {one.name for one in trained}
    assert not list(run.path.glob(".executor-*"))


class Scripted:
    """An engine without workers: each attempt of a task ends as the script says."""

    def __init__(self, script: dict[int, list[Outcome | Exception]]) -> None:
        self.script = script
        self.submitted: list[int] = []
        self.tasks: list[tuple[object, int]] = []
        self.cancelled: list[int] = []
        self.most = self.now = 0
        self.closed = False

    def submit(self, call: Call) -> ScriptedPending:
        self.submitted.append(call.number)
        self.tasks.append(ForkingPickler.loads(call.content))
        self.now += 1
        self.most = max(self.most, self.now)
        return ScriptedPending(self, call, self.script[call.number].pop(0))

    def close(self) -> None:
        self.closed = True


class ScriptedPending:
    """A call that has begun, and ends when it is asked for the second time; ``waits`` is never begun."""

    def __init__(self, engine: Scripted, call: Call, end: Outcome | Exception) -> None:
        self.engine, self.call, self.end, self.asked = engine, call, end, 0

    def done(self) -> bool:
        if self.end == WAITS:
            return False
        path = messages_path(Path(self.call.folder), self.call.number)
        tell(path, ("progress", f"task {self.call.number}", self.asked, 2))
        self.asked += 1
        return self.asked == 2

    def result(self) -> Outcome:
        self.engine.now -= 1
        if isinstance(self.end, Exception):
            raise self.end
        return self.end

    def cancel(self) -> None:
        self.engine.cancelled.append(self.call.number)


DONE, WAITS = Outcome("done"), Outcome("waits")
KILLED = Outcome("lost", text="a worker was ended")


def run_script(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    script: dict[int, list[Outcome | Exception]],
    retries: int = 2,
    costs: Sequence[float] = (),
) -> tuple[Scripted, list[tuple[str, int, int]], list[str], Exception | None]:
    """Spread tasks over a scripted engine; return it, the progress, the messages, and the error."""
    engine = Scripted(script)
    monkeypatch.setattr(spread_module, "require_engine", lambda _execution: None)
    monkeypatch.setattr(spread_module, "open_engine", lambda _execution, _room: engine)
    monkeypatch.setattr(spread_module, "POLL_SECONDS", 0.0)
    steps: list[tuple[str, int, int]] = []
    told: list[str] = []
    how = Spread(folder, "cpu", 2, Execution("scripted", retries=retries))
    error = None
    try:
        spread(kill_once, list(range(len(script))), how, lambda *step: steps.append(step), told.append, costs=costs)
    except (RunError, InputError, OSError) as raised:
        error = raised
    assert engine.closed
    assert not list(folder.iterdir())
    return engine, steps, told, error


def test_the_most_expensive_tasks_begin_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script: dict[int, list[Outcome | Exception]] = {number: [DONE] for number in range(4)}
    engine, _, _, error = run_script(monkeypatch, tmp_path, script, costs=[1.0, 3.0, 2.0, 3.0])
    assert error is None
    # Equal ones keep their order.
    assert [task for _, task in engine.tasks] == [1, 3, 2, 0]


def test_processes_of_this_machine_begin_with_the_most_expensive_task(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    begun: list[int] = []
    monkeypatch.setattr(spread_module, "side_by_side", lambda _work, tasks, *_, **__: begun.extend(tasks))
    how = Spread(tmp_path, "cpu", 2)
    spread(kill_once, [10, 11, 12], how, lambda *_: None, begun.append, costs=[1.0, 3.0, 2.0])
    assert begun == [11, 12, 10]


def test_tasks_are_handed_out_two_at_a_time_and_lost_ones_begin_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = {0: [DONE], 1: [KILLED, OSError("node\nfailed"), DONE], 2: [DONE]}
    engine, steps, told, error = run_script(monkeypatch, tmp_path, script)
    assert error is None
    # A lost task goes before those that have not begun.
    assert engine.submitted == [0, 1, 1, 2, 1]
    assert engine.most == 2
    assert told == [
        "a worker was ended: the task begins again, attempt 2 of 3",
        "a worker was lost (OSError: node): the task begins again, attempt 3 of 3",
    ]
    for task, attempts in ((0, 1), (1, 3), (2, 1)):
        assert [step for step in steps if step[0] == f"task {task}"] == [
            (f"task {task}", 0, 2),
            (f"task {task}", 1, 2),
        ] * attempts


def test_a_task_that_is_lost_too_often_is_one_line_and_the_others_are_given_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script: dict[int, list[Outcome | Exception]] = {0: [KILLED, KILLED], 1: [WAITS], 2: [DONE]}
    engine, _, told, error = run_script(monkeypatch, tmp_path, script, retries=1)
    assert isinstance(error, RunError)
    assert str(error) == "a worker was ended"
    assert len(told) == 1
    assert engine.submitted == [0, 1, 0]
    assert engine.cancelled == [1]


def test_an_error_of_a_task_is_raised_after_those_that_had_begun(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    failed = Outcome("failed", InputError("it failed", remedy="zoo"), "where it did")
    engine, steps, _, error = run_script(monkeypatch, tmp_path, {0: [failed], 1: [DONE], 2: [DONE]})
    assert isinstance(error, InputError)
    assert error.remedy == "zoo"
    assert "where it did" in str(error.__cause__)
    assert engine.submitted == [0, 1]
    assert ("task 1", 1, 2) in steps


class Idle:
    """A cluster of which no worker takes the task, which is done at the twentieth question nevertheless."""

    def __init__(self) -> None:
        self.asked = 0

    def submit(self, call: Call) -> Idle:
        return self

    def done(self) -> bool:
        self.asked += 1
        return self.asked == 20

    def result(self) -> Outcome:
        return DONE

    def cancel(self) -> None:
        raise AssertionError("nothing fails")

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("patience", "said"), [(-1.0, 1), (1e9, 0)])
def test_a_cluster_whose_workers_take_no_task_is_told_once_with_what_a_task_needs(
    patience: float, said: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told: list[str] = []
    monkeypatch.setattr(spread_module, "require_engine", lambda _execution: None)
    monkeypatch.setattr(spread_module, "open_engine", lambda _execution, _room: Idle())
    monkeypatch.setattr(spread_module, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(spread_module, "IDLE_SECONDS", patience)
    how = Spread(tmp_path, "cuda", 1, Execution("dask:host", threads=64))
    spread(kill_once, [1], how, lambda *_: None, told.append, needs=["phone"])
    assert len(told) == said
    for line in told:
        assert line.startswith("no worker of dask:host has begun a task for ")
        assert line.endswith("64 threads and a GPU and the resource phone; see threads in [execution]")


def test_workers_that_are_at_a_task_are_not_called_idle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    now = iter(range(0, 100_000, 40))
    monkeypatch.setattr(spread_module, "monotonic", lambda: next(now))
    _, _, told, error = run_script(monkeypatch, tmp_path, {task: [DONE] for task in range(6)})
    assert (told, error) == ([], None)


class Dies:
    """A cluster whose scheduler dies: a question that ``at`` names raises an error of its own."""

    def __init__(self, *at: str) -> None:
        self.at, self.submitted = at, 0

    def submit(self, call: Call) -> Dies:
        self.submitted += 1
        if "submit" in self.at and self.submitted == 2:
            raise OSError("the scheduler is gone\nand more")
        return self

    def done(self) -> bool:
        if "done" in self.at:
            raise OSError("the scheduler is gone")
        return self.submitted == 1

    def result(self) -> Outcome:
        return DONE

    def cancel(self) -> None:
        raise AssertionError("nothing is cancelled")

    def close(self) -> None:
        if "close" in self.at:
            raise OSError("nobody is there")


@pytest.mark.parametrize("at", [("submit",), ("done",), ("submit", "close")])
def test_a_scheduler_that_dies_is_an_error_of_one_line(
    at: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(spread_module, "require_engine", lambda _execution: None)
    monkeypatch.setattr(spread_module, "open_engine", lambda _execution, _room: Dies(*at))
    monkeypatch.setattr(spread_module, "POLL_SECONDS", 0.0)
    told: list[str] = []
    with pytest.raises(RunError) as raised:
        spread(kill_once, [1, 2], Spread(tmp_path, "cpu", 1, Execution("dask:host")), lambda *_: None, told.append)
    assert str(raised.value) == (
        "dask:host takes no more tasks (OSError: the scheduler is gone); repeat the command when it runs again: "
        "finished work is kept"
    )
    assert told == (["dask:host was not closed: OSError: nobody is there"] if "close" in at else [])
    assert not list(tmp_path.iterdir())


def test_a_worker_ends_when_its_caller_is_silent_or_gone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    now = 1000.0
    monkeypatch.setattr("cars_hw.executors.messages.time.monotonic", lambda: now)
    beat, caller = Beat(tmp_path), Caller(tmp_path)
    assert not caller.is_gone()
    now += 299
    assert not caller.is_gone()
    beat.keep()
    now += 299
    assert not caller.is_gone()
    now += 299
    assert not caller.is_gone(), "it was seen at the last question"
    now += 2
    assert caller.is_gone()
    beat.keep()
    assert not caller.is_gone()
    shutil.rmtree(tmp_path)
    assert caller.is_gone()


def test_half_a_message_waits_for_its_end(tmp_path: Path) -> None:
    path = messages_path(tmp_path, 7)
    messages, told = Messages(path), []
    assert not messages.begun
    messages.pass_on(lambda *_: None, told.append)
    path.write_text('["begun", "host"]\n["log", "one"]\n["log", "t')
    messages.pass_on(lambda *_: None, told.append)
    assert told == ["one"]
    with path.open("a") as stream:
        stream.write('wo"]\n')
    messages.pass_on(lambda *_: None, told.append)
    assert told == ["one", "two"]


def test_a_worker_of_another_version_or_without_the_folder_says_so(tmp_path: Path) -> None:
    call = Call(b"", str(tmp_path), 0, 1, str(tmp_path), (), "0.0.1")
    assert "has cars-hw" in str(perform(call).error)
    assert "this is 0.0.1" in str(perform(call).error)
    away = call._replace(version=own_version(), folder=str(tmp_path / "none"))
    assert "all machines must share it" in str(perform(away).error)
    assert not list(tmp_path.iterdir())


def test_a_killed_process_of_this_machine_is_replaced(tmp_path: Path) -> None:
    told: list[str] = []
    side_by_side(kill_once, [tmp_path / "one"], 1, lambda *_: None, told.append, retries=1)
    assert (tmp_path / "one").read_text() == "done"
    assert told == [
        "a worker process was ended by SIGKILL in the midst of its task; fewer jobs need less memory: "
        "the task begins again, attempt 2 of 2",
        "one is written",
    ]


@pytest.mark.parametrize(
    ("executor", "message"),
    [
        ("slurm", "unknown executor 'slurm'; use one of: local, dask, ray, submitit"),
        ("local:8", "the executor 'local' has no address: leave '8' out"),
    ],
)
def test_an_executor_that_is_none_is_refused_before_anything_is_trained(executor: str, message: str) -> None:
    with pytest.raises(InputError) as raised:
        train_run(RunFolder(Path("nowhere")), TrainSettings(execution=Execution(executor)))
    assert str(raised.value).startswith(message)


def test_a_package_that_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"needs the package ray, .* pip install 'cars-hw\[ray\]'$"):
        Spread(Path(), "cpu", execution=Execution("ray:auto"))


class Inline:
    """An engine that does a task at once, in this process, and remembers what it needs."""

    def __init__(self) -> None:
        self.needs: list[str] = []

    def submit(self, call: Call) -> Inline:
        self.needs.append(call.needs)
        work, task = ForkingPickler.loads(call.content)
        work(task, lambda *_: None, lambda _line: None)
        return self

    def done(self) -> bool:
        return True

    def result(self) -> Outcome:
        return DONE

    def cancel(self) -> None:
        raise AssertionError("it is done")

    def close(self) -> None:
        pass


def test_each_device_is_profiled_by_the_worker_that_has_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, table: LatencyTable
) -> None:
    asked = []

    def profile(
        devices: list[FakeDevice], _spec: NetworkSpec, paths: list[Path], **options: object
    ) -> list[LatencyTable]:
        asked.append((devices[0]._seed, paths[0].name, options["resume"]))
        table.write(paths[0])
        return [table]

    engine = Inline()
    monkeypatch.setattr(profile_devices_module, "profile_all", profile)
    monkeypatch.setattr(profile_devices_module, "require_engine", lambda _execution: None)
    monkeypatch.setattr(spread_module, "require_engine", lambda _execution: None)
    monkeypatch.setattr(spread_module, "open_engine", lambda _execution, _room: engine)
    settings = ProfileSettings(devices=("fake:1", "fake:2"), execution=Execution("dask:host"))
    written = profile_devices(settings, tmp_path / "all.json")
    assert engine.needs == ["fake:1", "fake:2"]
    # Each may be the second attempt, and resumes.
    assert asked == [(1, "all-fake-1.json", True), (2, "all-fake-2.json", True)]
    assert [one.path.name for one in written] == ["all-fake-1.json", "all-fake-2.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all-fake-1.json", "all-fake-2.json"]
    with pytest.raises(TableError, match="exists"):
        profile_devices(settings, tmp_path / "all.json")
    with pytest.raises(InputError, match="stands for devices of this machine"):
        profile_devices(replace(settings, devices=("android:*",)), tmp_path / "all.json")
