"""What is seen of a search while it runs, drawn from records that were written by hand."""

from __future__ import annotations

import io
import math
import os
import signal
import sys
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from cars_hw.cli.live_view import LinesView, LiveView, closing_lines, draw, generation_line, search_view
from cars_hw.cli.search_status import SearchStatus, TimeLeft, snapshot
from cars_hw.cli.text_plot import ASCII, plot, sparkline
from cars_hw.config.codec import unstructure
from cars_hw.config.evaluation import ClassCounts
from cars_hw.config.search import EvolutionSettings
from cars_hw.config.training import EvaluatedClassifier
from cars_hw.evolution.objectives import CostObjective
from cars_hw.space.network_spec import NETWORKS
from cars_hw.space.zoo import resolve_genotype

GENOTYPE = resolve_genotype("CARS_A").to_dict()
SPEC = unstructure(NETWORKS["tiny"])

LATENCY = CostObjective(
    "latency on ort",
    "ms",
    lambda _one: 0.0,
    bound=lambda one: 0.3319 if one.network == NETWORKS["tiny"] else math.nan,
    limit=0.395,
)
PARAMETERS = CostObjective("parameters", "M", lambda _one: 0.0)

SETTINGS = EvolutionSettings(population=4, epochs=25, warmup_epochs=5, epochs_per_generation=2)
"""Ten generations."""

MEMBERS = [(0.5, 0.1, 0.03), (0.7, 0.2, 0.05), (0.6, 0.3, 0.04), (0.825, 0.3089, 0.033146), (0.7, 0.2, 0.05)]
"""By latency the first, the second (twice) and the fourth are the front: the second is better than the third."""


def record(number: int, hypervolume: float, members: list[tuple[float, ...]] = MEMBERS) -> dict[str, Any]:
    population = [
        {"genotype": GENOTYPE, "network": SPEC, "accuracy": accuracy, "gain": 0.0, "costs": costs}
        for accuracy, *costs in members
    ]
    # The best of MEMBERS is right in 33 of 40 images, in two of three classes.
    counts = {"images": [20, 10, 10], "right": [20, 10, 3]}
    return {"generation": number, "hypervolume": hypervolume, "population": population, "best_counts": counts}


def status(*objectives: CostObjective, records: int = 2) -> SearchStatus:
    made = SearchStatus("images to run", objectives, SETTINGS, now=100.0)
    members = [member[: 1 + len(objectives)] for member in MEMBERS]
    made.add(*(record(number + 1, 0.1 * (number + 1), members) for number in range(records)))
    return made


def shown(known: SearchStatus, now: float = 100.0, width: int = 80, height: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), record=True, width=width, height=height)
    console.print(draw(console, known, now))
    text = console.export_text().splitlines()
    assert [len(line) for line in text] == [width] * height
    return [line.rstrip() for line in text]


def test_the_figures_of_a_generation_stand_in_80_by_24() -> None:
    known = status(LATENCY)
    known.update("generations", 7, 30, 130.0)
    known.log("the front will not be measured on android: nothing is attached")
    text = shown(known, 165.0)
    assert text[0].split("  ")[0] == "images to run"
    assert text[0].endswith("  1 min 5 s elapsed")
    assert text[1].startswith("generation 3 of 10, epoch 1 of 2  ━")
    assert text[2] == "best within the budget: 82.5% (68.1 to 91.3) of 40 images, shared weights"
    assert text[3] == "  0.3089 ms on ort, at most 0.3319 ms, budget 0.395 ms"
    assert text[4] == "hypervolume 0.2000  ▁█  from 0.1000"
    # The front: three of five, the cheapest first; beside it the plot, between the least and the most.
    table = [line[:27].rstrip() for line in text[6:10]]
    assert table[:2] == ["accuracy   latency on ort", "   50.0%           0.1 ms"]
    assert table[2:] == ["   70.0%           0.2 ms", "   82.5%        0.3089 ms"]
    assert "82.5% │" in text[6]
    assert any("50.0% │" in line for line in text)
    assert sum(line[27:].count("●") for line in text) == 3
    assert sum(line[27:].count("·") for line in text) == 1
    assert any(line.endswith("budget 0.395 ms") for line in text)
    assert text[-1] == "the front will not be measured on android: nothing is attached"


def test_without_a_budget_counts_are_whole_and_several_costs_have_columns() -> None:
    text = shown(status(PARAMETERS))
    assert text[2:4] == ["best: 82.5% (68.1 to 91.3) of 40 images, shared weights", "  308,900 parameters"]
    text = shown(status(LATENCY, PARAMETERS), width=120)
    assert text[3:5] == ["  0.3089 ms on ort, at most 0.3319 ms, budget 0.395 ms", "  33,146 parameters"]
    assert text[7].split()[:6] == ["accuracy", "latency", "on", "ort", "parameters", "82.5%"]
    # By latency alone the third is outside, but it has fewer parameters than what is faster.
    assert [line.split()[0] for line in text[7:11]] == ["accuracy", "50.0%", "70.0%", "60.0%"]


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (40, 10), (20, 6), (12, 3), (80, 8)])
def test_it_fits_any_terminal(size: tuple[int, int]) -> None:
    known = status(LATENCY, PARAMETERS, records=300)
    for number in range(9):
        known.log(f"message {number} " + "x" * 200)
    text = shown(known, width=size[0], height=size[1])
    assert text
    if size == (80, 24):
        assert [line[:9] for line in text[-3:]] == ["message 6", "message 7", "message 8"]
        assert all(line.endswith("x…") for line in text[-3:])


def test_a_long_front_shows_both_its_ends_and_says_how_many_are_missing() -> None:
    known = SearchStatus("t", [PARAMETERS], SETTINGS, 0.0)
    known.add(record(1, 0.1, [(0.01 * n, 0.001 * n) for n in range(1, 31)]))
    text = shown(known, width=40)
    rows = [line for line in text if "%" in line and "best" not in line]
    # Of 24 lines five are above the front; there is one between them, one for the titles, one for what is missing.
    assert len(rows) == 16
    assert (rows[0].split(), rows[-1].split()) == (["1.0%", "1,000"], ["30.0%", "30,000"])
    assert text[-1] == "and 14 between them"


def test_before_anything_is_known_it_says_so() -> None:
    known = SearchStatus("t", [PARAMETERS], SETTINGS, 0.0)
    assert shown(known)[1].startswith("preparing")
    known.update("warm-up", 3, 5, 1.0)
    assert shown(known)[1].startswith("warm-up, epoch 4 of 5  ")
    known.update("generations", 30, 30, 2.0)
    assert shown(known)[1].startswith("evaluating the finalists  ━")
    known.update("measuring the front", 4, 12, 3.0)
    assert shown(known)[1].startswith("measuring the front, 4 of 12  ━")


def test_time_left_follows_the_pace_of_whole_units() -> None:
    known = SearchStatus("t", [PARAMETERS], SETTINGS, 0.0)
    assert known.left(5.0) is None
    known.update("warm-up", 0, 5, 10.0)
    assert known.left(12.0) is None
    known.update("warm-up", 2, 5, 30.0)
    # Ten seconds an epoch: three of warm-up, and twenty of the generations, less the two seconds since.
    assert known.left(32.0) == TimeLeft(228.0, at_least=True)
    known.update("generations", 0, 30, 60.0)
    assert known.left(61.0) is None
    known.update("generations", 1, 30, 64.0)
    assert known.left(64.0) == TimeLeft(29 * 4.0, at_least=True)
    known.update("generations", 3, 30, 90.0)
    # A generation took thirty seconds, nine are left; the judging of the next one says nothing new.
    known.update("generations", 4, 30, 94.0)
    assert known.left(95.0) == TimeLeft(9 * 30.0 - 5.0, at_least=False)
    assert known.left(1000.0) == TimeLeft(1.0, at_least=False)


def test_without_shared_training_a_generation_is_an_evaluation() -> None:
    seen = SearchStatus("images to run", [LATENCY], SETTINGS, 100.0, "untrained-probe")
    seen.update("generations", 0, 10, 100.0)
    seen.update("generations", 1, 10, 102.0)
    assert seen.doing == "generation 2 of 10, evaluating"
    # Nine generations at two seconds each.
    assert seen.left(102.0) == TimeLeft(18.0, at_least=False)


def test_what_an_earlier_process_did_took_no_time_of_this_one() -> None:
    known = SearchStatus("t", [PARAMETERS], SETTINGS, 0.0)
    known.update("generations", 21, 30, 0.0)
    known.update("generations", 24, 30, 60.0)
    assert known.left(60.0) == TimeLeft(120.0)


def test_a_record_is_read_once_and_the_best_of_equals_is_the_cheaper() -> None:
    read = snapshot(record(3, 0.5, [(0.8, 0.3), (0.8, 0.2), (0.5, 0.1)]), [LATENCY])
    assert read.best == (0.8, (0.2,), (0.3319,), ClassCounts((20, 10, 10), (20, 10, 3)))
    assert read.front == ((0.5, (0.1,)), (0.8, (0.2,)))
    assert len(read.population) == 3


def test_a_generation_in_a_line_has_the_best_with_its_costs() -> None:
    known = status(LATENCY, PARAMETERS)
    assert generation_line(record(3, 0.25), known) == (
        "generation 3/10: best accuracy 82.5% (68.1 to 91.3) of 40 images under shared weights (0.3089 ms on ort, "
        "at most 0.3319 ms, budget 0.395 ms; 33,146 parameters), hypervolume 0.2500"
    )


def test_balanced_accuracy_is_called_by_its_name() -> None:
    known = SearchStatus("t", [PARAMETERS], replace(SETTINGS, objective="balanced-accuracy"), 0.0)
    known.add(record(3, 0.25, [(23 / 30, 0.033)]))
    counts = ClassCounts((20, 10, 10), (20, 10, 3))
    assert counts.balanced_accuracy == pytest.approx(23 / 30)
    low, high = (100 * end for end in counts.interval("balanced-accuracy"))
    share = f"76.7% ({low:.1f} to {high:.1f}) of 40 images"
    assert shown(known, width=120)[2] == f"best by balanced accuracy: {share}, shared weights"
    line = generation_line(record(3, 0.25, [(23 / 30, 0.033)]), known)
    assert f"best balanced accuracy {share} under shared weights" in line


@pytest.mark.parametrize(
    ("classifier", "short", "words"),
    [
        ("shared", "shared weights", "under shared weights"),
        ("probe", "linear probe", "under shared weights with a linear probe"),
        ("untrained-probe", "untrained probe", "by a linear probe on untrained weights"),
    ],
)
def test_the_classifier_that_evaluated_is_named(classifier: EvaluatedClassifier, short: str, words: str) -> None:
    known = SearchStatus("t", [PARAMETERS], SETTINGS, 0.0, classifier)
    last = record(3, 0.25, [(0.825, 0.033)])
    known.add(last)
    assert shown(known, width=120)[2] == f"best: 82.5% (68.1 to 91.3) of 40 images, {short}"
    assert f"of 40 images {words} (33,000 parameters)" in generation_line(last, known)
    assert f"of 40 images {words}, hypervolume" in closing_lines(known, 60.0)[0]


def test_the_bar_shows_the_share_of_the_stage_that_is_done() -> None:
    known = SearchStatus("t", [PARAMETERS], SETTINGS, 0.0)
    known.update("measuring", 5, 20, 1.0)
    # "measuring, 5 of 20" and two spaces leave 20 columns.
    assert shown(known, width=40)[1] == "measuring, 5 of 20  " + 5 * "━"


def test_lines_and_points_lie_where_their_figures_say() -> None:
    assert sparkline([0.0, 0.5, 1.0], 10) == "▁▅█"
    assert sparkline([2.0, 2.0], 10) == "▁▁"
    # Ten values in five letters: every second one, with the last.
    assert sparkline([0, 1, 0, 1, 0, 1, 0, 1, 0, 7], 5) == "▁▁▁▁█"
    assert sparkline([], 5) == ""
    drawn = plot([(0.0, 0.0), (2.0, 1.0)], [(1.0, 0.5), (2.0, 1.0)], 4.0, width=6, height=4, letters=ASCII)
    assert drawn == ["|  o |", "| .  |", "|o   |", "+-----"]
    assert plot([(1.0, 1.0)], [], None, width=4, height=4, letters=ASCII)[1] == "|" + " o "


class Terminal(io.StringIO):
    encoding = "utf-8"  # type: ignore[assignment]

    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch, term: str = "xterm-256color") -> Terminal:
    """Make standard error one; not a fixture, since pytest takes the stream back between set-up and test."""
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    return stream


LEFT = ("\x1b[?1049l", "\x1b[?25h")
"""Back from the second screen; the cursor is shown."""


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_the_terminal_is_as_it_was_after_an_interruption(
    monkeypatch: pytest.MonkeyPatch, signal_number: signal.Signals
) -> None:
    stream = terminal(monkeypatch)
    before = signal.getsignal(signal.SIGTERM)
    # Whoever began this process may have had it ignore Ctrl-C, as nohup does.
    interrupted = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises((KeyboardInterrupt, SystemExit)), search_view(status(LATENCY)) as view:
            assert isinstance(view, LiveView)
            view.on_resume([record(3, 0.3, [(0.9, 0.25)])])
            view.log("said before")
            view.on_note("an image is left out")
            # Whatever else is printed meanwhile is kept as well.
            print("a warning", file=sys.stderr)
            os.kill(os.getpid(), signal_number)
    finally:
        signal.signal(signal.SIGINT, interrupted)
    assert sys.stderr is stream
    assert signal.getsignal(signal.SIGTERM) == before
    written = stream.getvalue()
    ending = written[written.rindex("\x1b[?1049l") :]
    assert all(code in written for code in LEFT)
    assert ending.endswith("said before\nan image is left out\na warning\n" + ending.splitlines()[-1] + "\n")
    assert ending.splitlines()[-1].startswith("generation 3/10 after ")
    assert "best accuracy 90.0% (68.1 to 91.3) of 40 images under shared weights, hypervolume 0.3000" in ending


@pytest.mark.parametrize("term", ["dumb", "", "unknown"])
def test_a_terminal_that_can_do_nothing_gets_lines(monkeypatch: pytest.MonkeyPatch, term: str) -> None:
    stream = terminal(monkeypatch, term)
    with search_view(status(LATENCY, PARAMETERS)) as view:
        assert isinstance(view, LinesView)
        view.on_resume([record(3, 0.3)])
        view.on_generation(record(4, 0.4))
        view.update("generations", 30, 30)
    assert "\x1b" not in stream.getvalue()
    first, second, third = stream.getvalue().splitlines()
    assert first.startswith("resumes after generation 3/10: best accuracy 82.5%")
    assert second.startswith("generation 4/10: ")
    assert third == "generations: 30/30 after 0 s"


def test_without_colours_it_is_the_same_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = terminal(monkeypatch)
    monkeypatch.setenv("NO_COLOR", "1")
    with search_view(status(LATENCY)) as view:
        view.update("generations", 3, 30)
    assert "\x1b[36m" not in stream.getvalue()
    assert "best within the budget: " in stream.getvalue()
