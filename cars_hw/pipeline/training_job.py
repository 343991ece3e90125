"""A training to be done, and whether a finished one is it: all settings that decide its weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from cars_hw.callbacks import TrainingCallback
from cars_hw.config.codec import unstructure
from cars_hw.config.data import DataSource
from cars_hw.config.files import expanded
from cars_hw.config.setting import fields_of
from cars_hw.config.teacher import Teacher
from cars_hw.config.training import Recipe
from cars_hw.errors import InputError
from cars_hw.pipeline.networks import TrainedNetwork
from cars_hw.pipeline.settings import TrainSettings
from cars_hw.pipeline.starting_weights import StartingWeights
from cars_hw.space.architecture import Architecture
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.training.network_step import Stepping
from cars_hw.training.precision import resolve_precision
from cars_hw.training.teacher import TeacherNetwork


@dataclass(frozen=True)
class StartingFrom:
    """What a training has besides its recipe: the weights that it starts from, and a teacher; with digests."""

    init: Path | None = None
    init_digest: str | None = None
    teacher: Teacher = field(default_factory=Teacher)
    teacher_about: str | None = None

    @classmethod
    def of(cls, settings: TrainSettings) -> StartingFrom:
        """Return that of ``settings``, after the files were read.

        Raises:
            InputError: a file cannot be used, or settings do not fit each other.
        """
        teacher = settings.teacher.absolute()
        if settings.init is not None and settings.inherit:
            raise InputError("the weights to start from are either a file's or the SuperNet's, not both")
        about = TeacherNetwork(teacher).about if (teacher.network, teacher.weights) != (None, None) else None
        init = None if settings.init is None else expanded(settings.init).absolute()
        return cls(init, None if init is None else StartingWeights.read(init).digest, teacher, about)

    def read_weights(self) -> StartingWeights | None:
        """Read the weights to start from again; None if there are none.

        Raises:
            InputError: they cannot be read, or are not those of :attr:`init_digest`.
        """
        if self.init is None:
            return None
        found = StartingWeights.read(self.init)
        if found.digest != self.init_digest:
            raise InputError(f"{self.init} was changed since the command began; run it again")
        return found

    def read_teacher(self) -> TeacherNetwork | None:
        """Read the teacher again; None if there is none.

        Raises:
            InputError: it cannot be read, or is not that of :attr:`teacher_about`.
        """
        return None if self.teacher_about is None else same_teacher(self.teacher, self.teacher_about)


def same_teacher(settings: Teacher, about: str) -> TeacherNetwork:
    """Return the teacher of ``settings``, which is to be the one that ``about`` tells."""
    found = TeacherNetwork(settings)
    if found.about != about:
        raise InputError(
            f"the teacher's weights {settings.weights} were changed since the command began, or differ between "
            "processes; run it again"
        )
    return found


@dataclass(frozen=True)
class TrainingJob:
    """The training of one network of a run: its settings, and where its images lie."""

    run: Path
    data: DataSource
    data_digest: str
    test_digest: str
    name: str
    architecture: Architecture
    recipe: Recipe
    seed: int
    device: str
    inherit: bool
    callback: Callable[[str], TrainingCallback] | None = None
    start: StartingFrom = field(default_factory=StartingFrom)
    deterministic: bool = False
    stepping: Stepping = field(default_factory=Stepping)
    threads: int = 0

    def done_by(self, trained: TrainedNetwork) -> bool:
        """Whether ``trained`` is the result of this job."""
        return (trained.name, trained.architecture.key()) == (self.name, self.architecture.key()) and (
            resolved(trained.recipe, self.device),
            trained.seed,
            trained.data_digest,
            trained.inherit,
            trained.init,
            trained.teacher,
            trained.deterministic,
            trained.compile,
        ) == (
            self.recipe,
            self.seed,
            self.data_digest,
            self.inherit,
            self.start.init_digest,
            self.start.teacher_about,
            self.deterministic,
            self.stepping.compiled,
        )


def difference(trained: TrainedNetwork, job: TrainingJob) -> str:
    """Return the first setting in which ``trained`` differs from ``job``: ``epochs = 5, not 1``."""
    before = {**_size(trained.spec), **asdict(resolved(trained.recipe, job.device)), "seed": trained.seed}
    now = {**_size(job.architecture.network), **asdict(job.recipe), "seed": job.seed}
    found = next((name for name in now if before[name] != now[name]), None)
    if found is not None:
        return f"{found.replace('_', ' ')} = {before[found]}, not {now[found]}"
    others = {
        "other weights at the start": trained.init != job.start.init_digest,
        "another teacher, or none": trained.teacher != job.start.teacher_about,
        f"{'shared' if trained.inherit else 'fresh'} weights at the start": trained.inherit != job.inherit,
        "other images": trained.data_digest != job.data_digest,
        f"{'' if trained.deterministic else 'no '}deterministic algorithms": (
            trained.deterministic != job.deterministic
        ),
        f"{'' if trained.compile else 'no '}compiled steps": trained.compile != job.stepping.compiled,
    }
    return next((name for name, is_other in others.items() if is_other), "another genotype")


def _size(network: NetworkSpec) -> dict[str, object]:
    return {
        "channels": network.channels,
        "layers": network.layers,
        "depths": network.stages,
        "resolution": network.pixels,
    }


def resolved(recipe: Recipe, device: str) -> Recipe:
    """Return ``recipe`` with the precision that ``device`` trains in, which decides the weights."""
    return replace(recipe, precision=resolve_precision(recipe.precision, device))


def about(job: TrainingJob) -> dict[str, str | float | bool | None]:
    """Return every setting that decides the final weights of ``job``, apart from the machine."""
    return {
        "genotype": json.dumps(job.architecture.genotype.to_dict()),
        "network": json.dumps(unstructure(job.architecture.network)),
        "data": job.data_digest,
        "seed": job.seed,
        "inherit": job.inherit,
        **({} if job.start.init_digest is None else {"init": job.start.init_digest}),
        **({} if job.start.teacher_about is None else {"teacher": job.start.teacher_about}),
        **({"deterministic": True} if job.deterministic else {}),
        # Compiled steps round differently.
        **({"compile": True} if job.stepping.compiled else {}),
        # Left out where it is the default, so that a checkpoint of an earlier version can be gone on with.
        **{
            f"recipe.{name}": value
            for name, value in asdict(job.recipe).items()
            if name not in Recipe.ADDED or value != fields_of(Recipe)[name].default
        },
    }
