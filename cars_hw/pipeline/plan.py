"""The plan of a search: all of its settings, and their form in a run folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar, cast

from cars_hw.config.data import DataSource
from cars_hw.config.measurement import Precision
from cars_hw.config.presets import Preset, require_steps
from cars_hw.config.training import PassReplay, Recipe, StepReplay
from cars_hw.errors import InputError, RunError
from cars_hw.latency import LatencyTable
from cars_hw.pipeline.costs import ENERGY, network_cost_of, parse_cost
from cars_hw.pipeline.latency_target import LatencyTarget, energy_target
from cars_hw.pipeline.records import RunConfiguration
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.settings import SearchSettings, SizeChoice, TargetSettings, TrainingDevice
from cars_hw.pipeline.time_plan import TimePlan
from cars_hw.space.architecture_space import ArchitectureSpace
from cars_hw.space.genotype_space import GenotypeSpace
from cars_hw.space.network_spec import NETWORKS, NetworkSpec, resolution_text
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.size_grid import SizeGrid
from cars_hw.space.space_of import space_of
from cars_hw.space.widening import require_widening


@dataclass(frozen=True)
class SearchPlan:
    """Every setting of a search.

    ``network`` is the exported network, and the network of the tables. With ``proxy`` the search runs on other data
    than the network is for, as in the paper, CIFAR-10 for ImageNet; otherwise the data must fit the network.
    ``precision`` is that of the exported models and of all tables; None takes it from the tables. With
    ``standalone_epochs`` no weights are shared: every architecture is trained standalone for that many epochs.

    ``costs`` are names of costs that are minimised besides the latencies of ``targets``, such as ``peak-memory``,
    or with a limit ``peak-memory=0.5``, see :mod:`cars_hw.pipeline.costs`.

    With ``sizes``, the search proposes networks of all these sizes, and ``network`` becomes the largest. The
    SuperNet has that size then, whatever the preset says. With a single size ``network`` gets it, and ``sizes``
    becomes None. With a single resolution ``network`` gets it, and ``sizes`` has none. A SuperNet of blocks has as
    many blocks as the network, because a genotype has a choice for each: ``supernet_layers`` of the ``preset``
    becomes None.

    ``replay`` says what a GPU records of the search. It does not change the search.

    ``time`` is set if the length of the search was chosen for a time, see :mod:`cars_hw.pipeline.within`. It does
    not change the search, which says when it takes longer than estimated. With ``from_run``, the search starts from
    the shared weights of that run, see :mod:`cars_hw.pipeline.from_run`. ``chosen`` are the paths of settings that
    were chosen for one of the two.

    Of ``space`` only those genotypes are proposed that leave no cell of a network without a reader: the plan sets
    ``space.network`` to ``network``, and :attr:`architectures` are what the search proposes.

    Raises:
        TableError: a table is not for all networks.
        InputError: there is no cost to minimise, one is unknown or named twice, the resolution varies in a search
            on a proxy, or networks are to be trained and evaluated without training.
    """

    data: DataSource
    network: NetworkSpec
    preset: Preset
    targets: tuple[LatencyTarget, ...] = ()
    costs: tuple[str, ...] = ()
    space: GenotypeSpace = field(default_factory=SearchSpace)
    seed: int = 0
    proxy: bool = False
    precision: Precision | None = None
    device: str = "cpu"
    standalone_epochs: int = 0
    sizes: SizeGrid | None = None
    time: TimePlan | None = None
    from_run: Path | None = None
    chosen: tuple[str, ...] = ()
    replay: PassReplay = "auto"

    def __post_init__(self) -> None:
        if self.sizes is not None:
            object.__setattr__(self, "network", self.sizes.largest(self.network))
            if len(self.sizes) == 1:
                object.__setattr__(self, "sizes", None)
            elif len(self.sizes.resolutions) == 1:
                object.__setattr__(self, "sizes", replace(self.sizes, resolutions=()))
        if self.architectures.varies_resolution and self.proxy:
            raise InputError(
                "the resolution cannot vary in a search on a proxy, whose images have a resolution of their own",
                remedy="one-resolution",
            )
        if self.network.blocks is not None and self.preset.supernet_layers is not None:
            object.__setattr__(self, "preset", replace(self.preset, supernet_layers=None))
        _require_one_training(self)
        if not self.standalone_epochs:
            require_widening(self.architectures, self.preset.evolution.widening)
        # A resolution that the stem cannot have is reported here.
        smallest = self.architectures.smallest
        object.__setattr__(self, "space", self.space.for_network(self.network))
        for target in self.targets:
            for network in dict.fromkeys((self.network, smallest)):
                target.table.require(network, self.precision or target.precision)
        if not self.targets and not self.costs:
            raise InputError("a search needs a cost: give a latency table, or a cost such as parameters")
        names = [parse_cost(text)[0] for text in self.costs]
        for name in names:
            network_cost_of(name)
            if name == ENERGY:
                energy_target(self.targets)
            if names.count(name) > 1:
                raise InputError(f"the cost {name} is named twice")

    @property
    def architectures(self) -> ArchitectureSpace:
        """The architectures that the search proposes."""
        return ArchitectureSpace(self.space.for_network(None), self.network, self.sizes)

    @property
    def step_replay(self) -> StepReplay:
        """Whether steps of the final stage are recorded."""
        return "off" if self.replay == "off" else "auto"

    @property
    def has_final_stage(self) -> bool:
        """Whether short trainings choose the front. Without shared weights every accuracy is of a training."""
        return self.preset.final.share > 0 and not self.standalone_epochs

    @property
    def exported_precision(self) -> Precision:
        """The precision of the exported models: int8 if any table is for it."""
        tables = {target.precision for target in self.targets}
        return self.precision or ("int8" if "int8" in tables else "fp32")


def _require_one_training(plan: SearchPlan) -> None:
    """Check that the networks of ``plan`` are not both trained standalone and evaluated without a training.

    Raises:
        InputError: they are.
    """
    if plan.standalone_epochs and not plan.preset.training.trains:
        raise InputError(
            f"training.classifier = {plan.preset.training.classifier!r} evaluates networks that are not trained, "
            f"and standalone_epochs = {plan.standalone_epochs} trains each of them: set one of the two"
        )


def search_plan(settings: SearchSettings, device: str) -> SearchPlan:
    """Return the plan of a search by ``settings`` on ``device``, cpu or cuda, with its tables read.

    Raises:
        TableError: a table cannot be read, or the tables are for several networks.
        InputError: there is no cost to minimise, or a setting has no effect.
    """
    targets = tuple(
        LatencyTarget(
            LatencyTable.read(one.table),
            one.limit_ms,
            level=one.level,
            state=one.state,
            at_least_ms=one.at_least_ms,
        )
        for one in settings.targets
    )
    network, sizes = _network_and_sizes(settings, [target.table for target in targets])
    preset = Preset(
        summary="",
        recipe=settings.recipe,
        supernet_channels=settings.supernet_channels,
        supernet_layers=settings.supernet_layers,
        evolution=settings.evolution,
        training=settings.training,
        final=settings.final,
    )
    require_steps(preset)
    return SearchPlan(
        data=settings.data,
        network=network,
        preset=preset,
        targets=targets,
        costs=settings.costs,
        space=space_of(network, settings.operations),
        seed=settings.seed,
        proxy=settings.proxy,
        precision=settings.precision,
        device=device,
        standalone_epochs=settings.standalone_epochs,
        sizes=sizes,
        from_run=settings.from_run,
        replay=settings.replay,
    )


def _network_and_sizes(
    settings: SearchSettings, tables: Sequence[LatencyTable]
) -> tuple[NetworkSpec, SizeGrid | None]:
    """Return the network of the search, and the sizes that it may have: by ``settings``, or common to ``tables``.

    The sizes are None where that of the network is the only one.

    Raises:
        TableError: a table is for another network.
        InputError: the tables have no size in common.
    """
    network = tables[0].spec if tables else settings.network
    chosen = settings.sizes
    if tables and settings.network != NETWORKS["quick"]:
        given = settings.network.with_changes(channels=network.channels, layers=network.layers)
        tables[0].require(given, tables[0].precision)
    grids = [table.sizes or SizeGrid((table.spec.channels,), (table.spec.layers,)) for table in tables]
    resolutions = [grid.resolutions or (table.spec.resolution,) for grid, table in zip(grids, tables, strict=True)]
    sizes = SizeGrid(
        chosen.channels or _in_common([grid.channels for grid in grids]) or (network.channels,),
        chosen.layers or _in_common([grid.layers for grid in grids]) or (network.layers,),
        chosen.resolutions or _in_common(resolutions) or (network.resolution,),
    )
    own = SizeGrid((network.channels,), (network.layers,), (network.resolution,))
    return network, None if sizes == own else sizes


def _size_text(size: int | tuple[int, int]) -> str:
    return str(size) if isinstance(size, int) else resolution_text(size)


Size = TypeVar("Size", int, tuple[int, int])


def _in_common(grids: Sequence[tuple[Size, ...]]) -> tuple[Size, ...]:
    """Return the sizes of one of ``grids`` that lie within all of them; none without grids.

    It is the first one that has such sizes: a range of 4 and 8 covers 6 without having that number.

    Raises:
        InputError: there is none.
    """
    if not grids:
        return ()
    least, most = max(grid[0] for grid in grids), min(grid[-1] for grid in grids)
    for grid in grids:
        if found := tuple(one for one in grid if least <= one <= most):
            return found
    ranges = " and ".join(f"{_size_text(grid[0])} to {_size_text(grid[-1])}" for grid in grids)
    raise InputError(
        f"the tables have no size in common (their ranges are {ranges}); profile the devices for one range of sizes"
    )


def search_settings(plan: SearchPlan, tables: Sequence[Path]) -> SearchSettings:
    """Return the settings of the search of ``plan``, whose targets' tables are in the files ``tables``."""
    return SearchSettings(
        data=plan.data.absolute(),
        targets=tuple(
            TargetSettings(path, target.limit_ms, target.at_least_ms, target.level, target.state)
            for path, target in zip(tables, plan.targets, strict=True)
        ),
        costs=plan.costs,
        precision=plan.precision,
        seed=plan.seed,
        proxy=plan.proxy,
        measure=any(target.device is not None for target in plan.targets) or not plan.targets,
        device=cast("TrainingDevice", plan.device),
        replay=plan.replay,
        network=plan.network,
        sizes=_chosen_sizes(plan),
        operations=plan.space.operations,
        supernet_channels=plan.preset.supernet_channels,
        supernet_layers=plan.preset.supernet_layers,
        standalone_epochs=plan.standalone_epochs,
        from_run=None if plan.from_run is None else plan.from_run.absolute(),
        evolution=plan.preset.evolution,
        training=plan.preset.training,
        recipe=plan.preset.recipe,
        final=plan.preset.final,
    )


def _chosen_sizes(plan: SearchPlan) -> SizeChoice:
    """Return the sizes of ``plan``, a single one too: a table may have more."""
    if plan.sizes is None:
        return SizeChoice((plan.network.channels,), (plan.network.layers,), (plan.network.resolution,))
    return SizeChoice(plan.sizes.channels, plan.sizes.layers, plan.sizes.resolutions or (plan.network.resolution,))


def configuration(plan: SearchPlan) -> RunConfiguration:
    """Return the configuration of a run by ``plan``, which :func:`plan_of` reads again."""
    return RunConfiguration(
        data=plan.data.absolute().source,
        seed=plan.seed,
        network=plan.network,
        operations=plan.space.operations,
        targets=tuple(target.record() for target in plan.targets),
        precision=plan.exported_precision,
        costs=plan.costs,
        proxy=plan.proxy,
        supernet_channels=plan.preset.supernet_channels,
        supernet_layers=plan.preset.supernet_layers,
        evolution=plan.preset.evolution,
        training=plan.preset.training,
        recipe=plan.preset.recipe,
        standalone_epochs=plan.standalone_epochs,
        sizes=plan.sizes,
        final=plan.preset.final,
        from_run=None if plan.from_run is None else str(plan.from_run.absolute()),
    )


def plan_of(run: RunFolder, data: DataSource | None, device: str = "cpu") -> SearchPlan:
    """Return the plan that ``run`` was searched by, its images from ``data``; None is where the search found them.

    The plan starts from fresh weights, even if the search did not.

    Raises:
        RunError: the settings do not fit each other.
        TableError: a table of the run cannot be read.
    """
    configuration = run.configuration
    preset = Preset(
        summary="",
        recipe=configuration.recipe,
        supernet_channels=configuration.supernet_channels,
        supernet_layers=configuration.supernet_layers,
        evolution=configuration.evolution,
        training=configuration.training,
        final=configuration.final,
    )
    try:
        return SearchPlan(
            data or run.data.source,
            configuration.network,
            preset,
            run.targets(),
            configuration.costs,
            space_of(configuration.network, configuration.operations),
            configuration.seed,
            configuration.proxy,
            configuration.precision,
            device,
            configuration.standalone_epochs,
            configuration.sizes,
        )
    except InputError as error:
        raise RunError(f"{run.path / 'run.json'} is damaged: {error}", remedy="restore-run") from error


def recipe_of(run: RunFolder) -> Recipe:
    """Return the recipe of the preset that the run was started with."""
    return run.configuration.recipe
