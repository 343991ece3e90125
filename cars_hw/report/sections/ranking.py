"""Rank correlation of shared and standalone accuracy."""

from __future__ import annotations

from typing import Any

from cars_hw.config.evaluated import shared_adjective, shared_words, training_words
from cars_hw.formatting import figure, percent
from cars_hw.report.accuracies import share
from cars_hw.report.data import ReportData
from cars_hw.report.plot import SQUARE, Point, scatter
from cars_hw.studies.ranking import MINIMUM, Ranked, Ranking, spread


def view(report: ReportData) -> dict[str, Any]:
    """Return the checked sample; without one, the trained networks of the front."""
    ranking = report.ranking
    if ranking is not None and not ranking.networks:
        return {"skipped": True}
    found = ranking or _of_the_front(report)
    losses = ["shared loss"] if found.by_loss else []
    name = report.choosing_name
    if ranking is not None:
        name = f"{shared_adjective(ranking.classifier)} {ranking.accuracy.replace('-', ' ')}"
    enough = ranking is not None or len(found.networks) >= MINIMUM
    sized = len({one.spec for one in found.networks}) > 1
    # An interval of a balanced accuracy needs the images of each class.
    plain = found.accuracy == "accuracy"
    return {
        "sized": sized,
        "parts": report.spec.parts,
        "skipped": False,
        "drawn": None if ranking is None else _drawn(ranking),
        "accuracy": found.accuracy.replace("-", " "),
        "evaluated": "" if ranking is None else training_words(0, ranking.classifier),
        "networks": found.networks,
        "plain": plain,
        "images": next(
            (
                f"{one.validation_images:,} validation images and {one.test_images:,} test images"
                for one in found.networks
                if one.validation_images and one.test_images
            ),
            "",
        ),
        "tau": found.tau if enough else None,
        "agreement": found.agreement,
        "spread": spread(found.networks) if enough else None,
        "order": "shared loss" if found.by_loss else name,
        "columns": ["network", *(["size"] if sized else []), name, *losses],
        "epochs": None if found.recipe is None else found.recipe.epochs,
        "rows": [
            (
                one.name,
                *([report.size_of(one.spec)] if sized else []),
                share(one.shared, one.validation_images if plain else None),
                *(["" if one.shared_loss is None else figure(one.shared_loss)] if losses else []),
                share(one.standalone, one.test_images if plain else None),
            )
            for one in sorted(found.networks, key=lambda one: -one.standalone)
            if enough
        ],
    }


def _of_the_front(report: ReportData) -> Ranking:
    """Return the trained networks of the front as a sample, which may have begun with shared weights."""
    trained = [
        Ranked(
            one.name,
            one.genotype,
            one.spec,
            one.shared_accuracy,
            one.trained.test.score(report.objective),
            validation_images=one.validation.total if one.validation else None,
            test_images=one.trained.test.total,
            shared_loss=one.validation.loss if one.validation and report.losses_chose else None,
        )
        for one in report.candidates
        if one.trained is not None and one.shared_accuracy is not None
    ]
    return Ranking(tuple(trained), None, "loss" if report.losses_chose else report.objective)


def _drawn(ranking: Ranking) -> str:
    name, evaluated = ranking.accuracy.replace("-", " "), shared_words(ranking.classifier)
    points = [
        Point(
            100 * one.shared,
            100 * one.standalone,
            f"{one.name}: {percent(one.shared)} {evaluated}, {percent(one.standalone)} standalone",
            "ring" if one.drawn else "disc",
        )
        for one in ranking.networks
    ]
    shared = f"{shared_adjective(ranking.classifier)} {name} (validation), %"
    return scatter(points, shared, f"standalone {name} (test), %", frame=SQUARE)
