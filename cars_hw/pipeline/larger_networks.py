"""The networks of the final stage that use more of a budget than the answer of the search.

Their accuracies say whether more of the budget would be more accurate.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from cars_hw.config.evaluation import Objective
from cars_hw.config.setting import Settings, count, fraction, milliseconds, predicted, setting
from cars_hw.config.units import in_milliseconds
from cars_hw.evolution.nominees import Nominee
from cars_hw.formatting import percent
from cars_hw.pipeline.records import FinalStage, RunConfiguration
from cars_hw.space.architecture import Architecture


@dataclass(frozen=True)
class ShortTraining(Settings):
    """What a short training of the final stage made of a network.

    ``predicted_ms`` is its predicted latency on the device of the budget, and ``score`` the figure that the search
    maximises, a fraction of the held-out images.
    """

    predicted_ms: float = predicted()
    score: float = fraction()


@dataclass(frozen=True)
class Compared(Settings):
    """The answer beside the most accurate network that uses more of the budget, after equally long trainings.

    ``best`` is the most accurate of ``networks`` networks. Both figures are those after ``epochs`` epochs, the
    longest training that the answer and at least one larger network had. ``whole`` tells whether the answer was
    not trained for longer than that. Both are evaluated on ``images`` held-out images.
    """

    networks: int = count(minimum=1)
    epochs: int = count(minimum=1)
    whole: bool = setting()
    images: int = count(minimum=1)
    best: ShortTraining = setting()
    answer: ShortTraining = setting()


@dataclass(frozen=True)
class LargerNetworks(Settings):
    """The networks of the final stage that use more of the budget ``limit_ms`` on ``device`` than ``answer``.

    A network uses more of the budget if its predicted latency is higher. ``stage`` is the number of networks of the
    final stage, 0 if the search had none. ``trained`` of them use more of the budget and were trained. Those that
    exceeded a budget when they were measured are not among them; their number is ``exceeded``. ``compared`` is None
    if ``trained`` is 0.
    """

    device: str
    limit_ms: float = milliseconds()
    answer: str = setting(name=True)
    stage: int = count()
    trained: int = count()
    exceeded: int = count()
    objective: Objective = "accuracy"
    compared: Compared | None = None

    DERIVED: ClassVar = ("sentence",)

    @property
    def sentence(self) -> str:
        """What was tried, in one sentence without its period."""
        limit = f"the {in_milliseconds(self.limit_ms)} on {self.device}"
        if not self.stage:
            return f"No network that uses more of {limit} was trained, because the search had no final stage"
        apart = f", apart from {self.exceeded} that exceeded a budget when measured" if self.exceeded else ""
        if self.compared is None:
            return f"None of the {self.stage} networks of the final stage uses more of {limit}{apart}"
        one = self.trained == 1
        return (
            f"In the final stage, {self.trained} network{'' if one else 's'} that use{'s' if one else ''} more of "
            f"{limit} {'was' if one else 'were'} trained{apart}; {self._comparison(self.compared)}"
        )

    @property
    def more_accurate(self) -> bool:
        """Whether the best of these networks was more accurate than the answer after as long a training."""
        return self.compared is not None and self.compared.best.score > self.compared.answer.score

    def _comparison(self, compared: Compared) -> str:
        epochs = f"{compared.epochs} {'epoch' if compared.epochs == 1 else 'epochs'}"
        if compared.networks < self.trained:
            which = f"the most accurate of the {compared.networks} with the longest training"
        else:
            which = "it" if self.trained == 1 else "the most accurate of them"
        best, answer = percent(compared.best.score), percent(compared.answer.score)
        images = f"{compared.images:,} held-out images"
        if self.objective == "accuracy":
            had = f"{best} of {images} right"
        else:
            had = f"a {self.objective.replace('-', ' ')} of {best} on {images}"
        return (
            f"after {epochs}{'' if compared.whole else ', as long as both were trained'}, {which} (predicted at "
            f"{in_milliseconds(compared.best.predicted_ms)}) had {had}, and {self.answer} (predicted at "
            f"{in_milliseconds(compared.answer.predicted_ms)}) {answer}"
        )


@dataclass(frozen=True)
class StageEnd:
    """The final stage of a search after its end; ``stage`` is None for a search without one.

    ``rejected`` are the architectures that exceeded a budget when they were measured.
    """

    stage: FinalStage | None
    rejected: Sequence[Architecture]
    objective: Objective


def stage_end(
    configuration: RunConfiguration, stage: FinalStage | None, rejected: Iterable[Architecture]
) -> StageEnd | None:
    """Return the end of the search of ``configuration``.

    Returns None if the search trained every network standalone: it has no final stage and needs none.
    """
    if configuration.standalone_epochs:
        return None
    return StageEnd(stage, tuple(rejected), configuration.evolution.printed_accuracy)


def larger_networks(
    end: StageEnd, *, device: str, limit_ms: float, index: int, name: str, answer: Architecture
) -> LargerNetworks | None:
    """Return the networks of ``end`` that use more of the budget ``limit_ms`` on ``device`` than ``answer``.

    ``index`` is the place of the device's latency among the costs, and ``name`` the name of the answer. Returns
    None if the answer was not trained in the final stage.
    """
    stage = end.stage
    if stage is None:
        return LargerNetworks(device, limit_ms, name, 0, 0, 0, end.objective)
    own = next((one for one in stage.networks if one.architecture.key() == answer.key()), None)
    if own is None or not own.results:
        return None
    over = {one.key() for one in end.rejected}
    more = [one for one in stage.networks if one.costs[index] > own.costs[index] and one.results]
    kept = [one for one in more if one.architecture.key() not in over]
    return LargerNetworks(
        device,
        limit_ms,
        name,
        len(stage.networks),
        len(kept),
        len(more) - len(kept),
        end.objective,
        _compared(stage, own, kept, index, end.objective) if kept else None,
    )


def _compared(
    stage: FinalStage, own: Nominee, larger: Sequence[Nominee], index: int, objective: Objective
) -> Compared:
    """Return ``own`` beside the best of ``larger``, at the end of the last rung in which both were trained."""
    rungs = min(len(own.results), max(len(one.results) for one in larger))
    longest = [one for one in larger if len(one.results) >= rungs]

    def trained(one: Nominee) -> ShortTraining:
        return ShortTraining(one.costs[index], one.results[rungs - 1].score(objective))

    best = max(map(trained, longest), key=lambda one: (one.score, -one.predicted_ms))
    return Compared(
        len(longest),
        stage.rungs.epochs[rungs - 1],
        rungs == len(own.results),
        own.results[rungs - 1].total,
        best,
        trained(own),
    )
