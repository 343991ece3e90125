"""What the report says of other strategies."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from cars_hw.cli.baselines import print_comparison
from cars_hw.config.training import EvaluatedClassifier, Recipe
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.report.curves import Curve, draw_curves
from cars_hw.report.data import gather
from cars_hw.report.page import page
from cars_hw.report.plot import Frame
from cars_hw.report.sections.baselines import verdict
from cars_hw.space.network_spec import NETWORKS
from cars_hw.space.search_space import SearchSpace
from cars_hw.studies.strategy_comparison import Generation, StrategyComparison, Trained, Trial

PLAIN = Frame(width=130, height=120, left=20, right=10, top=10, bottom=10)


def comparison(other: str = "random") -> StrategyComparison:
    genotype = SearchSpace().sample(np.random.default_rng(0))

    def trial(strategy: str, seed: int, accuracy: float, reach: float) -> Trial:
        generations = tuple(Generation(0.1 * n, 0.1, 0.1 + reach * n, 0.05) for n in (1, 2))
        return Trial(strategy, seed, 8, generations, (Trained(genotype, NETWORKS["tiny"], (0.25,), 0.5, accuracy),))

    trials = (
        trial("own", 0, 0.9, 0.2),
        trial("own", 1, 0.8, 0.2),
        trial(other, 0, 0.85, 0.1),
        trial(other, 1, 0.85, 0.1),
    )
    return StrategyComparison("latency on fake", "ms", (0.2, 0.5), trials, Recipe(epochs=3))


def test_the_verdict_counts_seeds() -> None:
    # Half of the box's cost times (0.2 - error) / 0.2: 0.25 and 0 against 0.125 twice.
    assert "above random in 1 of 2 seeds (+0.0000 on average)" in verdict(comparison())


def test_without_a_comparison_the_report_says_how_to_make_one(run: RunFolder) -> None:
    drawn = page(gather(run))
    assert "Not compared" in drawn
    assert f"cars-hw baselines {run.path.name}" in drawn


def test_a_comparison_is_in_the_report(make_run: Callable[..., RunFolder]) -> None:
    run = make_run("compared")
    run.write_record("baselines.json", comparison())
    drawn = page(gather(run))
    section = drawn[drawn.index('id="baselines"') :]
    assert "Not compared" not in section[: section.index("</section>")]
    for figure in ("0.1250 to 0.1250", "0.0000 to 0.2500", "2 seeds", "an error of 20.0% at 0.5 ms", "3 epochs"):
        assert figure in section


@pytest.mark.parametrize("classifier", ["shared", "probe"])
def test_populations_of_standalone_training_are_not_called_shared(
    classifier: EvaluatedClassifier, capsys: pytest.CaptureFixture[str]
) -> None:
    by = {"shared": "shared", "probe": "linear probe"}[classifier]
    print_comparison(comparison("standalone"), classifier)
    shown = capsys.readouterr().out
    rows = {
        line.split()[0]: line for line in shown.splitlines() if line.strip().startswith(("own ", "standalone "))
    }
    # The heading is that of all rows.
    assert by not in shown.splitlines()[1]
    assert f"0.2000 ({by})" in rows["own"]
    assert "0.2000 (one epoch alone)" in rows["standalone"]
    assert by not in rows["standalone"]
    print_comparison(comparison(), classifier)
    assert capsys.readouterr().out.count(f"0.2000 ({by})") == 2


def test_the_report_tells_populations_of_standalone_training_apart(make_run: Callable[..., RunFolder]) -> None:
    run = make_run("alone")
    drawn = {}
    for other in ("random", "standalone"):
        run.write_record("baselines.json", comparison(other))
        whole = page(gather(run))
        drawn[other] = whole[whole.index('id="baselines"') :]
    assert "hypervolume under shared weights" in drawn["random"]
    assert "one epoch of training each network alone" not in drawn["random"]
    assert "hypervolume of the population (standalone: trained)" in drawn["standalone"]
    assert "hypervolume under shared weights" not in drawn["standalone"]
    assert "and for standalone those after one epoch of training each network alone" in drawn["standalone"]


def test_curves_lie_where_their_figures_say() -> None:
    both = [Curve("a", [(1, 0), (2, 4)], [(0, 2), (2, 4)]), Curve("b", [(1, 4)])]
    drawn = draw_curves(both, "x", "y", PLAIN)
    # Generation 1 is at 20 and 2 at 120; 0 is at 110 and 4 at 10.
    assert re.findall(r'class="line curve-\d" d="([^"]+)"', drawn) == ["M20.0 110.0L120.0 10.0", "M20.0 10.0h0.1"]
    assert 'd="M20.0 110.0L120.0 60.0L120.0 10.0L20.0 60.0Z"' in drawn


def test_an_axis_begins_at_zero_where_that_is_asked_for() -> None:
    drawn = draw_curves([Curve("a", [(1, 100), (2, 100)])], "x", "y", PLAIN, from_zero=True)
    assert 'd="M20.0 10.0L120.0 10.0"' in drawn
