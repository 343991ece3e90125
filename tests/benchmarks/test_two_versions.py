"""The comparison of two versions: its arithmetic."""

from __future__ import annotations

import pytest
from scripts import script


def test_the_ratios_are_those_of_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = script("benchmarks/two_versions", monkeypatch)
    # Ratios of 0.5, 2 and 1; their logarithms have a standard deviation of log 2, and log 2 / sqrt 3 is 0.400.
    line = versions.row("step", [1.0, 4.0, 3.0], [2.0, 2.0, 3.0])
    assert line.startswith("step")
    assert line.split("ratio ") == [
        "step         3.000 s     2.000 s   ",
        "1.000 (0.750 to 1.500), mean 1.000 ± 0.400",
    ]


def test_a_source_tree_without_the_benchmark_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    versions = script("benchmarks/two_versions", monkeypatch)
    monkeypatch.setattr("sys.argv", ["two_versions.py", "--other", "nowhere"])
    with pytest.raises(SystemExit):
        versions.main()
    assert "a source tree with benchmarks/speed.py" in capsys.readouterr().err
