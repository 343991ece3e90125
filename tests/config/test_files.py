import errno
import json
import os
import tempfile
from pathlib import Path

import pytest

import cars_hw
from cars_hw.config.codec import parse_json, read_json
from cars_hw.config.files import replacing, to_json, write_json, write_text
from cars_hw.config.lock import locked
from cars_hw.errors import RunError

WITHOUT_FILES = {
    "config/codec.py": "the reader itself",
    "data/image_cache.py": "its own text, just written",
    "data/image_store.py": "its own text, just written",
    "devices/host/ort_worker.py": "an argument of the process that started it",
    "devices/host/session_worker.py": "the lines of the process that started it",
    "executors/dask_engine.py": "a file that a child process has just written, in a temporary folder",
    "executors/messages.py": "lines of its own workers, in a temporary folder",
    "export/ort_memory.py": "a profile that ONNX Runtime has just written, in a temporary folder",
    "pipeline/train_ranks.py": "a message of the leading process",
    "space/mobile.py": "a file of the package",
    "space/zoo.py": "a file of the package",
    "studies/paper_tables.py": "a file of the package",
    "testing.py": "its own text, just written",
}
"""The modules that read JSON that is in no file of a user."""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_text_and_json_are_written_and_replace_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "value.json"
    write_text(path, "Grüße\n")
    assert path.read_text(encoding="utf-8") == "Grüße\n"
    write_json(path, {"b": 1, "a": [1.5, None, "ü"]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"b": 1, "a": [1.5, None, "ü"]}
    assert names(path.parent) == ["value.json"]


def test_a_path_that_is_not_utf8_can_be_read_back(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    folder = os.fsdecode(b"/data/\xff\xe4-\xc3\xbc")
    write_json(path, {"data": folder})
    assert read_json(path) == {"data": folder}
    assert os.fsencode(read_json(path)["data"]) == b"/data/\xff\xe4-\xc3\xbc"


@pytest.mark.parametrize(
    "text", ["[" * 100_000, b'{"a": ' * 100_000, '{"a": NaN}', '{"a": -Infinity}', "", b"\xff"]
)
def test_what_is_no_json_is_one_kind_of_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        parse_json(text)


def test_every_file_is_read_by_the_reader_that_knows_of_deep_nesting() -> None:
    package = Path(cars_hw.__file__).parent
    reading = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if "json.load" in path.read_text(encoding="utf-8")
    }
    assert reading == WITHOUT_FILES.keys()


def test_others_may_read_it(tmp_path: Path) -> None:
    write_text(tmp_path / "value", "x")
    assert (tmp_path / "value").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_an_error_in_the_middle_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "value.json"
    write_text(path, "old")
    with pytest.raises(error), replacing(path) as temporary:
        assert temporary.parent == path.parent
        temporary.write_text("half of")
        assert path.read_text() == "old"
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["value.json"]


def test_an_error_in_the_middle_leaves_no_new_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), replacing(tmp_path / "value.json") as temporary:
        temporary.write_text("half of")
        raise RuntimeError
    assert names(tmp_path) == []


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    path = tmp_path / "value.json"
    write_text(path, "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((os, "fsync") if failing == "fsync" else (Path, "replace")), full)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["value.json"]


@pytest.mark.parametrize(("durable", "flushed"), [(True, 1), (False, 0)])
def test_only_a_durable_file_waits_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool, flushed: int
) -> None:
    handles: list[int] = []
    monkeypatch.setattr(os, "fsync", handles.append)
    with replacing(tmp_path / "value", durable=durable) as temporary:
        temporary.write_bytes(b"new")
    assert (tmp_path / "value").read_bytes() == b"new"
    assert len(handles) == flushed


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"a": object()}, {1j: 2}])
def test_what_json_cannot_hold_leaves_the_old_file(tmp_path: Path, value: object) -> None:
    path = tmp_path / "value.json"
    write_json(path, {"a": 1})
    with pytest.raises((ValueError, TypeError)):
        write_json(path, value)
    assert json.loads(path.read_text()) == {"a": 1}
    assert names(tmp_path) == ["value.json"]


def test_json_keeps_the_order_and_ends_its_last_line() -> None:
    assert to_json({"b": 1, "a": "é"}) == '{\n "b": 1,\n "a": "é"\n}\n'


def test_a_folder_that_cannot_be_written_is_told_by_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(prefix: str, suffix: str, dir: Path) -> tuple[int, str]:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(dir / f"{prefix}abcdefgh{suffix}"))

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    with pytest.raises(OSError, match="Read-only") as error:
        write_text(tmp_path / "report.html", "x")
    assert error.value.filename == str(tmp_path / "report.html")


def test_a_lock_holds_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_handle: int, _content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with (
        locked(tmp_path / ".lock", "the run"),
        pytest.raises(RunError, match="another cars-hw writes to the run"),
        locked(tmp_path / ".lock", "the run"),
    ):
        pass
    assert not (tmp_path / ".lock").exists()
