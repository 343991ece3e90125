"""What the check on a GPU says about what it found."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
from scripts import script


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return script("benchmarks/gpu/check", monkeypatch)


def test_what_is_missing_wrong_or_slow_is_told(
    check: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "correct.json").write_text(json.dumps({"replays are right": True}))
    (tmp_path / "time.json").write_text(json.dumps({"a recording, ms": 41.5, "a replayed pass, ms": 3.9}))
    required = check.REQUIRED
    assert check.table(tmp_path, ["correct"], required)
    assert not check.table(tmp_path, ["correct", "time"], required)
    shown = capsys.readouterr().out
    assert "a recording, ms: 41.5   required 40   MISSED" in shown
    assert "a replayed pass, ms: 3.9   required 4\n" in shown
    # A dry run asks for no times.
    assert check.table(tmp_path, ["time"], {})
    assert not check.table(tmp_path, ["paper"], {})
    (tmp_path / "correct.json").write_text(json.dumps({"replays are right": False}))
    assert not check.table(tmp_path, ["correct"], required)
