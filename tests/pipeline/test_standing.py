"""What is said of trained networks by their test accuracies, from counts that were written by hand."""

from __future__ import annotations

from dataclasses import replace

from evaluations import evaluation

from cars_hw.config.evaluation import ClassCounts
from cars_hw.config.training import Recipe
from cars_hw.pipeline.networks import TrainedNetwork
from cars_hw.pipeline.standing import decided, majority_sentence, standing
from cars_hw.space.network_spec import NETWORKS
from cars_hw.space.zoo import zoo


def trained(name: str, right: tuple[int, ...], held_out: ClassCounts | None = None) -> TrainedNetwork:
    """Return a network with these right answers in classes of 12, 6 and 2 test images."""
    return TrainedNetwork(
        name,
        zoo()["CARS_A"].genotype,
        NETWORKS["quick"],
        evaluation((12, 6, 2), right),
        0.5,
        Recipe(epochs=2),
        0,
        2,
        held_out,
        "birds",
        False,
        ("crow", "jay", "owl"),
        "sha256:0",
        "sha256:1",
        "sha256:2",
    )


def test_the_best_of_few_images_is_not_called_better() -> None:
    # 17 of 20 and 14 of 20: three images more.
    found = standing([trained("net-01", (11, 3, 0)), trained("net-02", (12, 4, 1))])
    assert found is not None
    assert [one.name for one in found.equal] == ["net-01"]
    assert found.sentence == (
        "net-02 has the highest test accuracy, 85.0% (64.0 to 94.8). By these 20 test images it cannot be told "
        "from net-01 at 95% (exact test of McNemar, image by image, with the correction of Holm)."
    )


def test_a_network_that_is_right_in_all_differing_images_is_better() -> None:
    found = standing([trained("net-01", (12, 0, 0)), trained("net-02", (12, 6, 2)), trained("net-03", (5, 6, 2))])
    assert found is not None
    assert found.equal == ()
    assert found.sentence == (
        "net-02 has the highest test accuracy, 100.0% (83.9 to 100.0), and is better than the others by these 20 "
        "test images at 95% (exact test of McNemar, image by image, with the correction of Holm)."
    )


def test_one_network_is_compared_with_none_and_several_are_listed() -> None:
    assert standing([]) is None
    alone = standing([trained("net-01", (11, 3, 0))])
    assert alone is not None
    assert alone.sentence == "net-01 has the highest test accuracy, 70.0% (48.1 to 85.5), on 20 test images."
    several = standing([trained(f"net-{n}", (10 + n // 3, 4, 1)) for n in range(1, 5)])
    assert several is not None
    assert "cannot be told from net-1, net-2 and net-4 at 95%" in several.sentence


def test_networks_of_other_images_are_compared_by_their_intervals() -> None:
    other = replace(trained("net-01", (2, 1, 0)), test=evaluation((12, 6, 2), (2, 1, 0), "others"))
    found = standing([other, trained("net-02", (12, 6, 2))])
    assert found is not None
    assert (found.equal, found.paired) == ((), False)
    assert "(confidence intervals, as the networks answered for different images)" in found.sentence


def test_who_answers_with_one_class_is_told() -> None:
    names = ("crow", "jay", "owl")
    assert majority_sentence("net-01", ClassCounts((12, 6, 2), (12, 0, 0)), names) == (
        "net-01 is not shown to be better than the answer 'crow' for every image, which is right for 60.0% of the "
        "20 test images."
    )
    # 16 of 20: the interval begins at 58.4%. 17 of 20: at 64.0%.
    assert majority_sentence("net-01", ClassCounts((12, 6, 2), (12, 4, 0)), names) is not None
    assert majority_sentence("net-01", ClassCounts((12, 6, 2), (12, 5, 0)), names) is None


def test_of_several_trainings_held_out_images_decide_and_never_test_images() -> None:
    first, second = trained("net-01", (2, 0, 0)), trained("net-01@2", (12, 6, 2))
    other = trained("net-02", (3, 0, 0))
    # Without held-out images the first one stays, although the second is right in all test images.
    assert decided([second, other, first]) == [first, other]
    poor, good = ClassCounts((6, 3), (4, 1)), ClassCounts((6, 3), (3, 3))
    judged = [replace(first, held_out=good), replace(second, held_out=poor)]
    assert decided(judged) == [judged[0]]
    judged = [replace(first, held_out=poor), replace(second, held_out=good)]
    assert decided(judged) == [judged[1]]
    # By balanced accuracy, where that chose the epochs: 5/6 and 1/3 against 3/6 and 2/3 of the classes.
    accurate, balanced = ClassCounts((6, 3), (5, 1)), ClassCounts((6, 3), (3, 2))
    judged = [replace(first, held_out=accurate), replace(second, held_out=balanced)]
    assert decided(judged) == [judged[0]]
    by_class = replace(first.recipe, objective="balanced-accuracy")
    tied = [replace(one, recipe=by_class) for one in judged]
    assert decided(tied) == [tied[0]]
    better = [tied[0], replace(tied[1], held_out=good)]
    assert decided(better) == [better[1]]
    # Other held-out images, or another objective, are no comparison.
    assert decided([judged[0], replace(second, held_out=ClassCounts((9, 3), (9, 3)))]) == [judged[0]]
    assert decided([judged[0], better[1]]) == [judged[0]]
    assert [one.name for one in decided([trained("net-01@10", (1, 0, 0)), trained("net-01@9", (1, 0, 0))])] == [
        "net-01@9"
    ]
