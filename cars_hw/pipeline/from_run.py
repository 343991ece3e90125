"""A search that starts from the shared weights of an earlier run: what it takes, and what it cannot take."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch

from cars_hw.config.checksummed import digest
from cars_hw.config.codec import structure
from cars_hw.data.manifest import DataManifest
from cars_hw.errors import GenotypeError, RunError
from cars_hw.evolution import checkpoint
from cars_hw.evolution.objectives import CostObjective, feasible
from cars_hw.evolution.population import Member
from cars_hw.nn.shared_start import common_size, copy_weights
from cars_hw.nn.supernet import SuperNet
from cars_hw.pipeline.plan import SearchPlan
from cars_hw.pipeline.records import RunConfiguration, StartRecord
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.seen_changes import differences_by_name
from cars_hw.space.architecture import Architecture
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.size_grid import SizeGrid

FEWER: Final = 2
"""Where the earlier run trained all that the search needs, there are so many times fewer generations."""

LEAST_GENERATIONS: Final = 3

SLOWER: Final = 5
"""Where the earlier run trained all that the search needs, the learning rate begins at a fifth of the preset's.

At the whole rate the weights lose what the end of the earlier search gave them; docs/how-to/search-again.md has the
figures.
"""


@dataclass(frozen=True, eq=False)
class Start:
    """The weights of an earlier run, read and checked, and its last population.

    ``start`` is what that run took from another one, None where it began with fresh weights.
    """

    path: Path
    supernet: SuperNet
    digest: str
    configuration: RunConfiguration
    manifest: DataManifest
    population: tuple[Architecture, ...]
    start: StartRecord | None

    def give(self, plan: SearchPlan, supernet: SuperNet, manifest: DataManifest) -> StartRecord:
        """Copy the weights to ``supernet``, which is that of ``plan`` with the images of ``manifest``.

        Raises:
            RunError: see :meth:`require`.
        """
        same = self.require(supernet.spec, manifest)
        classifier = manifest.class_names == self.manifest.class_names
        fresh = tuple(name for name in plan.space.operations if name not in self.configuration.operations)
        taken = copy_weights(self.supernet, supernet, classifier=classifier, without=fresh)
        judging = "validation" if "validation" in manifest.counts else "train"
        known, known_test = (_known_images(self.manifest, manifest, part, same) for part in (judging, "test"))
        if self.start is not None:
            # Its weights were trained on the images of an earlier run, too, which cannot be compared with others.
            known = self.start.known_images if same else None
            known_test = self.start.known_test_images if same else None
        evolution = self.configuration.evolution
        return StartRecord(
            run=str(self.path),
            digest=self.digest,
            network=self.supernet.spec,
            supernet=supernet.spec,
            common=common_size(supernet.spec, self.supernet.spec),
            taken=taken,
            weights=sum(parameter.numel() for parameter in supernet.parameters()),
            classifier=classifier,
            fresh_operations=fresh,
            epochs=evolution.warmup_epochs + evolution.generations * evolution.epochs_per_generation,
            same_images=same,
            known_images=known,
            judging_images=manifest.images[judging],
            known_test_images=known_test,
            test_images=manifest.images["test"],
        )

    def members(self, plan: SearchPlan, objectives: Sequence[CostObjective]) -> list[Architecture]:
        """Return those of the last population that the search of ``plan`` may propose, within its limits."""
        space = plan.architectures
        found: dict[object, Architecture] = {}
        for genotype, own in self.population:
            network = plan.network
            if plan.sizes is not None:
                network = network.sized(own, resolution=own.resolution if space.varies_resolution else None)
            one = Architecture(genotype, network)
            if _searched(plan, genotype) and space.proposable(one) and feasible(objectives, one):
                found[one.key()] = one
        return list(found.values())[: plan.preset.evolution.population]

    def require(self, supernet: NetworkSpec, manifest: DataManifest) -> bool:
        """Check that the weights fit ``supernet`` and ``manifest``; return whether the images are the same.

        Raises:
            RunError: the images have another number of channels, or are the same and divided in another way.
        """
        channels = [one.in_channels for one in (self.supernet.spec, supernet)]
        if channels[0] != channels[1]:
            raise RunError(
                f"{self.path} is for images of {channels[0]} channels and this search for {channels[1]}: no "
                "weights fit"
            )
        if manifest.digest != self.manifest.digest:
            return False
        before, now = (
            {split.use: split.digest for split in one.splits if split.use != "test"}
            for one in (self.manifest, manifest)
        )
        if before != now:
            seed = self.configuration.seed
            raise RunError(
                f"{self.path} divided the same images in another way (seed {seed}): its weights were trained on "
                "images that now evaluate architectures",
                remedy="same-seed",
                seed=seed,
            )
        return True


def _searched(plan: SearchPlan, genotype: Genotype) -> bool:
    """Return whether ``genotype`` has only operations that the search of ``plan`` proposes."""
    try:
        plan.architectures.cells.validate(genotype)
    except GenotypeError:
        return False
    return True


def open_start(path: Path, plan: SearchPlan, expected: str | None = None) -> Start:
    """Return the weights of the finished run at ``path`` for the search of ``plan``; the run is only read.

    ``expected`` is the digest of the state of its search, where the search of ``plan`` has begun already.

    Raises:
        RunError: the run has not finished, a file of it is damaged or has changed, or its weights do not fit.
    """
    run = RunFolder.open(path)
    run.front()
    own = run.configuration
    _require_fit(path, own, plan)
    content = checkpoint.content(run.checkpoint)
    found = digest(content)
    if expected not in (None, found):
        raise RunError(f"the search in {path} is not the one that this search started from", remedy="other-out")
    manifest = run.data
    # Its initial weights are replaced; they must not use up random numbers of the caller.
    with torch.random.fork_rng(devices=[]):
        supernet = SuperNet(supernet_of(own, manifest), own.training.share)
    try:
        supernet.load_state_dict(checkpoint.supernet_weights(content))
    except RuntimeError as error:
        raise RunError(f"the weights of {path} are of a SuperNet of another structure") from error
    history = run.history()
    members = structure(history[-1]["population"], tuple[Member, ...]) if history else ()
    population = tuple(one.architecture for one in members)
    return Start(path.absolute(), supernet, found, own, manifest, population, run.start())


def supernet_of(configuration: RunConfiguration, manifest: DataManifest) -> NetworkSpec:
    """Return the SuperNet of the run with ``configuration`` and ``manifest``; its resolution may be another one."""
    spec = sized_supernet(
        configuration.network,
        configuration.sizes,
        configuration.supernet_channels,
        configuration.supernet_layers,
    )
    if not configuration.proxy:
        return spec
    # No weight depends on the resolution, which the manifest does not have.
    channels, classes = len(manifest.mean), len(manifest.class_names)
    return replace(spec, resolution=(32, 32), in_channels=channels, classes=classes, stem="cifar")


def sized_supernet(
    network: NetworkSpec, sizes: SizeGrid | None, channels: int | None, layers: int | None
) -> NetworkSpec:
    """Return ``network`` at the size of the SuperNet: in a search of one size with ``channels`` and ``layers``.

    Over sizes ``network`` has the largest of them.
    """
    return network if sizes is not None else network.with_changes(channels=channels, layers=layers)


def _require_fit(path: Path, own: RunConfiguration, plan: SearchPlan) -> None:
    """Check that weights of the run with ``own`` can serve the search of ``plan``.

    Raises:
        RunError: they cannot; the message says why.
    """
    without = [
        one.standalone_epochs or not training.trains
        for one, training in ((own, own.training), (plan, plan.preset.training))
    ]
    if any(without):
        whose = str(path) if without[0] else "this search"
        raise RunError(f"{whose} shares no weights, so that a search cannot start from them")
    stems = ["cifar" if one.proxy else one.network.stem for one in (own, plan)]
    if stems[0] != stems[1]:
        raise RunError(f"{path} has the {stems[0]} stem and this search the {stems[1]} stem: no weights fit")
    families = [one.network.base_family for one in (own, plan)]
    if families[0] != families[1]:
        raise RunError(
            f"{path} has {families[0]} {own.network.parts} and this search {families[1]} {plan.network.parts}: "
            "no weights fit"
        )
    shares = [own.training.share, plan.preset.training.share]
    if shares[0] != shares[1]:
        raise RunError(
            f"{path} shares weights by {shares[0]} and this search by {shares[1]}: the weights do not fit",
            remedy="same-share",
            share=shares[0],
        )
    if not set(own.operations) & set(plan.space.operations):
        raise RunError(f"{path} has no operation in common with this search")


def _known_images(before: DataManifest, now: DataManifest, part: str, same: bool) -> int | None:
    """Return how many images of this part of ``now`` were training images of ``before``; None if not known."""
    if same:
        # They are divided in the same way.
        return 0
    if before.files is None or now.files is None:
        # The images of fashion-mini are some of fashion-mnist, and a folder may have images of a data set.
        return None
    trained = {one for members in before.files["train"].values() for one in members.values()}
    return sum(one in trained for members in now.files[part].values() for one in members.values())


def serves_all(own: RunConfiguration, plan: SearchPlan) -> bool:
    """Return whether a run with ``own`` trained all that the search of ``plan`` needs, by its settings.

    Then only the budget differs: images and seed are the same, and all operations and sizes were trained.
    """
    return (
        own.data == plan.data.absolute().source
        and (own.seed, own.proxy) == (plan.seed, plan.proxy)
        and own.training.validation_fraction == plan.preset.training.validation_fraction
        and set(plan.space.operations) <= set(own.operations)
        and own.network.classes == plan.network.classes
        and _serves_sizes(own, plan)
    )


def _serves_sizes(own: RunConfiguration, plan: SearchPlan) -> bool:
    """Return whether all sizes of ``plan`` were trained. A search of one size trains only that of its SuperNet."""
    before = sized_supernet(own.network, own.sizes, own.supernet_channels, own.supernet_layers)
    preset = plan.preset
    now = sized_supernet(plan.network, plan.sizes, preset.supernet_channels, preset.supernet_layers)
    smallest = now if plan.sizes is None else plan.architectures.smallest
    several = own.architectures.varies_resolution
    # Images of a proxy have a resolution of their own.
    if not plan.proxy and not several and {now.resolution, smallest.resolution} != {before.resolution}:
        return False
    if own.sizes is None:
        return plan.sizes is None and (now.channels, now.stages) == (before.channels, before.stages)
    return own.sizes.covers(smallest) and own.sizes.covers(now)


WARM_UP: Final = "evolution.warmup_epochs"
EPOCHS: Final = "evolution.epochs"
RATE: Final = "training.learning_rate"


def shortened(plan: SearchPlan, given: Collection[str] = (), *, keep_generations: bool = False) -> SearchPlan:
    """Return ``plan`` with other defaults, because its search starts from weights that are trained.

    If the earlier run trained all that the search needs, see :func:`serves_all`, and no image of its folder has
    been added, removed or renamed since, there is no warm-up, the learning rate begins at a fifth, and there are
    half of the generations unless ``keep_generations``: the weights are those of the end of a search, and only the
    population is new. Otherwise the warm-up is half as long, and the rest stays. ``given`` are the paths of
    settings that stay.

    Raises:
        RunError: the earlier run cannot be read, or does not fit.
        InputError: the given epochs leave no generation.
    """
    assert plan.from_run is not None
    run = RunFolder.open(plan.from_run)
    run.front()
    _require_fit(plan.from_run, run.configuration, plan)
    evolution, training = plan.preset.evolution, plan.preset.training
    generations, warm_up, rate = (
        evolution.generations,
        math.ceil(evolution.warmup_epochs / 2),
        training.learning_rate,
    )
    chosen = [WARM_UP, EPOCHS]
    changed = differences_by_name(run.data)
    if serves_all(run.configuration, plan) and (changed is None or changed.same):
        warm_up = 0
        rate = max(rate / SLOWER, training.learning_rate_min)
        chosen.append(RATE)
        if not keep_generations:
            generations = max(min(generations, LEAST_GENERATIONS), math.ceil(generations / FEWER))
    if WARM_UP in given:
        warm_up = evolution.warmup_epochs
    epochs = warm_up + generations * evolution.epochs_per_generation
    if EPOCHS in given:
        epochs = evolution.epochs
        warm_up = warm_up if WARM_UP in given else min(warm_up, max(0, epochs - evolution.epochs_per_generation))
    if RATE in given:
        rate = training.learning_rate
    preset = replace(
        plan.preset,
        evolution=replace(evolution, warmup_epochs=warm_up, epochs=epochs),
        training=replace(training, learning_rate=rate),
    )
    return replace(plan, preset=preset, chosen=(*plan.chosen, *(path for path in chosen if path not in given)))
