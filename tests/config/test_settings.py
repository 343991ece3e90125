"""Settings: bounds from metadata, and the way to JSON and TOML and back, for every settings class."""

from __future__ import annotations

import copy
import json
import math
import os
import tomllib
from collections.abc import Iterator
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from cars_hw.cli.classify import ClassifySettings
from cars_hw.cli.cost import CostSettings
from cars_hw.cli.data import CheckSettings
from cars_hw.cli.runner import FetchSettings
from cars_hw.config.codec import structure, unstructure
from cars_hw.config.data import DataSource
from cars_hw.config.measurement import MeasurePlan
from cars_hw.config.presets import PRESETS
from cars_hw.config.search import EvolutionSettings, VariationRates
from cars_hw.config.setting import Field, Setting, Settings, fields_of, leaves
from cars_hw.config.toml import merged, read_settings, without_none, write_settings
from cars_hw.config.training import Recipe, SharedTraining
from cars_hw.errors import InputError, RunError
from cars_hw.pipeline.device_settings import MeasureSettings, PredictSettings, ProfileSettings, ValidateSettings
from cars_hw.pipeline.settings import ExportSettings, SearchSettings, TargetSettings, TrainSettings, VerifySettings
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.size_grid import SizeGrid
from cars_hw.space.wanted_sizes import WantedSizes
from cars_hw.studies.settings import (
    BaselinesSettings,
    FrontSettings,
    PaperTablesSettings,
    RankSettings,
    TrapSettings,
)

CLASSES = (
    DataSource,
    MeasurePlan,
    VariationRates,
    EvolutionSettings,
    SharedTraining,
    Recipe,
    NetworkSpec,
    ProfileSettings,
    TargetSettings,
    PredictSettings,
    SearchSettings,
    TrainSettings,
    ExportSettings,
    VerifySettings,
    RankSettings,
    BaselinesSettings,
    MeasureSettings,
    ValidateSettings,
    PaperTablesSettings,
    TrapSettings,
    FrontSettings,
    CostSettings,
    PredictSettings,
    CheckSettings,
    ClassifySettings,
    FetchSettings,
)

# A name that is blank names nothing.
TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20).filter(str.strip)


def rates(parts: tuple[int, int]) -> VariationRates:
    first, second = sorted(parts)
    return VariationRates(first / 8, (second - first) / 8, (8 - second) / 8)


def ascending(least: int, most: int, step: int = 1) -> st.SearchStrategy[tuple[int, ...]]:
    return st.sets(st.integers(least, most), min_size=1, max_size=4).map(
        lambda numbers: tuple(step * number for number in sorted(numbers))
    )


def resolutions() -> st.SearchStrategy[tuple[tuple[int, int], ...]]:
    return st.just(()) | ascending(8, 300).map(lambda sides: tuple((side, side + 1) for side in sides))


SPECIAL: dict[type, st.SearchStrategy[Any]] = {
    Genotype: st.integers(0, 1000).map(lambda seed: SearchSpace().sample(np.random.default_rng(seed))),
    Path: TEXT.filter(lambda text: text.strip("./") == text).map(Path),
    VariationRates: st.tuples(st.integers(0, 8), st.integers(0, 8)).map(rates),
    NetworkSpec: st.builds(
        NetworkSpec,
        st.integers(1, 50).map(lambda half: 2 * half),
        st.integers(3, 30),
        st.tuples(st.integers(32, 300), st.integers(32, 300)),
        st.integers(1, 3),
        st.integers(2, 1000),
        st.sampled_from(["cifar", "imagenet"]),
    )
    | st.tuples(*[st.integers(1, 9)] * 3).map(lambda depths: NetworkSpec(8, sum(depths), (32, 32), depths=depths)),
    SizeGrid: st.builds(SizeGrid, ascending(1, 50, step=2), ascending(3, 30), resolutions()),
    WantedSizes: st.builds(
        WantedSizes,
        st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=3).map(tuple),
        st.just(()) | ascending(1, 50, step=2),
        st.just(()) | ascending(3, 30),
        resolutions(),
    ),
}


def values(field: Field) -> st.SearchStrategy[Any]:
    one = single(field.type, field.setting)
    found: st.SearchStrategy[Any] = st.lists(one, max_size=3).map(tuple) if field.many else one
    return st.none() | found if field.optional else found


def single(kind: type[Any], about: Setting) -> st.SearchStrategy[Any]:
    if kind in SPECIAL:
        return SPECIAL[kind]
    if about.choices:
        return st.sampled_from(tuple(about.choices))
    if about.kind == "state":
        return st.sampled_from(["quiet", "usual"]) | st.floats(0, 1).map(str)
    if kind is float:
        return numbers(about)
    if kind == tuple[int, int]:
        return st.tuples(st.integers(1, 500), st.integers(1, 500))
    simple = {
        bool: st.booleans(),
        str: TEXT,
        int: st.integers(int(about.minimum or 0), int(about.maximum or 10_000)),
    }
    return simple[kind] if kind in simple else instances(kind)


def numbers(about: Setting) -> st.SearchStrategy[float]:
    low, high = about.minimum, about.maximum
    return st.floats(
        about.above if low is None else low,
        about.below if high is None else high,
        exclude_min=low is None and about.above is not None,
        exclude_max=high is None and about.below is not None,
        allow_nan=False,
        allow_infinity=False,
    )


def instances(cls: type[Any]) -> st.SearchStrategy[Any]:
    if cls in SPECIAL:
        return SPECIAL[cls]
    if cls is EvolutionSettings:
        # At least one generation has to be left after the warm-up.
        parts = {name: values(one) for name, one in fields_of(cls).items()}
        warm, each = st.integers(1, 50), st.integers(1, 20)
        return st.builds(
            lambda warmup_epochs, epochs_per_generation, more, **rest: EvolutionSettings(
                epochs=warmup_epochs + epochs_per_generation + more,
                warmup_epochs=warmup_epochs,
                epochs_per_generation=epochs_per_generation,
                **rest,
            ),
            warm,
            each,
            st.integers(0, 100),
            **{
                name: parts[name]
                for name in ("population", "protection", "rates", "uniform_draws", "draws", "widening", "objective")
            },
        )
    return st.builds(cls, **{name: values(one) for name, one in fields_of(cls).items()})


@pytest.mark.parametrize("cls", CLASSES)
@hypothesis_settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_json_and_toml_give_back_what_was_written(cls: type[Any], data: st.DataObject) -> None:
    built = data.draw(instances(cls))
    plain = unstructure(built)
    assert structure(json.loads(json.dumps(plain)), cls) == built
    text = tomli_w.dumps(without_none(plain))
    assert structure(tomllib.loads(text), cls, complete=False) == built


def test_files_without_later_settings_have_their_defaults() -> None:
    training = {"share", "average", "classifier", "deterministic", "precision"}
    added = {SharedTraining: training, EvolutionSettings: {"draws", "widening"}}
    for cls, names in added.items():
        assert names == cls.ADDED
        plain = unstructure(cls())
        earlier = {name: value for name, value in plain.items() if name not in names}
        assert len(earlier) == len(plain) - len(names)
        assert structure(earlier, cls) == cls()
    with pytest.raises(InputError, match=r"^batch_size is missing"):
        structure({"share": "edges"}, SharedTraining)
    assert (SharedTraining().share, SharedTraining().average, EvolutionSettings().draws) == ("edges", 0, "uniform")
    assert EvolutionSettings().widening == "none"


@pytest.mark.parametrize("cls", CLASSES)
def test_every_setting_has_help_and_a_default_within_its_bounds(cls: type[Any]) -> None:
    assert fields_of(cls).keys() == {one.name for one in fields(cls)}
    for name, one in fields_of(cls).items():
        assert one.setting.help, name
        if one.default is not MISSING:
            assert one.check(one.default) is None, name


def bounded() -> Iterator[tuple[type, str, float, str]]:
    for cls in CLASSES:
        for name, one in fields_of(cls).items():
            about = one.setting
            if one.type not in (int, float) or one.many:
                continue
            for bound, outside, words in (
                (about.minimum, -1, "at least"),
                (about.maximum, 1, "at most"),
                (about.above, 0, "above"),
                (about.below, 0, "below"),
            ):
                if bound is not None:
                    yield cls, name, bound + outside, words


EXAMPLE = {
    DataSource: DataSource("fashion-mini"),
    Recipe: Recipe(epochs=1),
    NetworkSpec: NetworkSpec(4, 3, (8, 8)),
    ProfileSettings: ProfileSettings(("fake",)),
    TargetSettings: TargetSettings(Path("table.json"), 1.0),
    VerifySettings: VerifySettings("fake"),
    MeasureSettings: MeasureSettings("fake"),
    ValidateSettings: ValidateSettings(Path("table.json")),
    PredictSettings: PredictSettings(Path("table.json")),
    TrapSettings: TrapSettings(EvolutionSettings(), SharedTraining(), PRESETS["quick"].recipe),
    FrontSettings: FrontSettings("fake", DataSource("fashion-mini"), PRESETS["quick"].recipe),
    SearchSettings: SearchSettings(
        DataSource("fashion-mini"), EvolutionSettings(), SharedTraining(), PRESETS["quick"].recipe
    ),
    **{
        cls: cls(DataSource("fashion-mini"), PRESETS["quick"].recipe)
        for cls in (TrainSettings, RankSettings, BaselinesSettings)
    },
}


def example(cls: type[Any]) -> Any:  # noqa: ANN401 -- of the class
    return EXAMPLE[cls] if cls in EXAMPLE else cls()


@pytest.mark.parametrize(("cls", "name", "value", "words"), list(bounded()))
def test_a_value_out_of_bounds_is_named(cls: type[Any], name: str, value: float, words: str) -> None:
    kind = fields_of(cls)[name].type
    with pytest.raises(InputError, match=f"^{name} must be {words} "):
        replace(example(cls), **{name: kind(value)})
    if kind is float:
        with pytest.raises(InputError, match=f"^{name} must be "):
            replace(example(cls), **{name: math.nan})


def paths(value: object, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every leaf and object of ``value``."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in items:
        yield (*before, name)
        yield from paths(one, (*before, name))


def shown(path: tuple[Any, ...]) -> str:
    text = ""
    for name in path:
        text += f"[{name}]" if isinstance(name, int) else f".{name}"
    return text.removeprefix(".")


WHOLE = unstructure(replace(EXAMPLE[SearchSettings], targets=(EXAMPLE[TargetSettings],), costs=("parameters",)))


def changed(path: tuple[Any, ...], *value: object) -> dict[str, Any]:
    """Return the settings of a search with ``value`` at ``path``, or with nothing there."""
    whole: dict[str, Any] = copy.deepcopy(WHOLE)
    holder: Any = whole
    for name in path[:-1]:
        holder = holder[name]
    if value:
        holder[path[-1]] = value[0]
    else:
        del holder[path[-1]]
    return whole


def later(cls: type[Any], before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every field that a file of an earlier version may lack."""
    for name, one in fields_of(cls).items():
        if name in getattr(cls, "ADDED", ()):
            yield (*before, name)
        if one.nested:
            yield from later(one.type, (*before, name))


@pytest.mark.parametrize("path", list(paths(WHOLE)), ids=shown)
def test_a_missing_or_mistyped_leaf_is_one_line_with_its_path(path: tuple[Any, ...]) -> None:
    with pytest.raises(InputError) as raised:
        structure(changed(path, object()), SearchSettings, "run.json")
    assert str(raised.value).startswith(f"run.json: {shown(path)} must be ")
    assert "\n" not in str(raised.value)
    if isinstance(path[-1], str) and path not in set(later(SearchSettings)):
        with pytest.raises(InputError) as raised:
            structure(changed(path), SearchSettings, "run.json")
        assert str(raised.value) == f"run.json: {shown(path)} is missing"


@pytest.mark.parametrize(
    "path", [("new",), ("evolution", "new"), ("evolution", "rates", "new"), ("network", "new")]
)
def test_an_unknown_key_is_one_line_with_its_path(path: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=f"^run.json: {'.'.join(path)} is unknown$"):
        structure(changed(path, 1), SearchSettings, "run.json")


def test_a_bound_deep_inside_is_named_with_its_path() -> None:
    with pytest.raises(InputError, match=r"^run.json: evolution.rates.node must be at most 1, not 2.0$"):
        structure(changed(("evolution", "rates", "node"), 2), SearchSettings, "run.json")
    with pytest.raises(InputError, match=r"^run.json: targets\[0\].limit_ms must be above 0, not -1.0$"):
        structure(changed(("targets", 0, "limit_ms"), -1), SearchSettings, "run.json")


def test_a_file_says_only_what_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(
        'preset = "paper"\nseed = 3\n[evolution]\nepochs = 9\n[[targets]]\ntable = "t.json"\nlimit_ms = 2\n'
    )
    read = read_settings(path, SearchSettings, ["preset"])
    assert read == {
        "preset": "paper",
        "seed": 3,
        "evolution": {"epochs": 9},
        "targets": [{"table": str(tmp_path / "t.json"), "limit_ms": 2.0}],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed = -1", "seed must be at least 0, not -1"),
        ("seed = 1.5", "seed must be a whole number, not 1.5"),
        # Torch's generators would end in a traceback, here or with the next seed.
        ("seed = 9223372036854775808", r"seed must be at most 9\.22337e\+18, not 9223372036854775808"),
        ("sed = 1", "sed is unknown; known here: preset, data, "),
        ("[evolution]\nepoch = 1", "evolution.epoch is unknown; known here: population, epochs"),
        ("evolution = 1", "evolution must be an object, not 1"),
        ("[evolution.rates]\nnode = 2", "evolution.rates.node must be at most 1, not 2.0"),
        ('operations = ["size"]', "operations must be one of none, .*, not 'size'"),
        ("targets = 1", "targets must be a list, not 1"),
        ("targets = [1]", r"targets\[0\] must be a table, not 1"),
        ('[[targets]]\ntable = "t"\nlimit_ms = 0', r"targets\[0\].limit_ms must be above 0, not 0.0"),
        ("preset = 1", "preset must be a text, not 1"),
        ("seed =", "is not TOML"),
        ("seed = 1\nseed = 2", "is not TOML"),
    ],
)
def test_what_is_wrong_in_a_file_is_one_line_with_file_and_key(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"c\.toml:? {message}") as raised:
        read_settings(path, SearchSettings, ["preset"])
    assert "\n" not in str(raised.value)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*c\.toml: No such file"):
        read_settings(tmp_path / "c.toml", SearchSettings)


def test_written_settings_are_read_again(tmp_path: Path) -> None:
    built = EXAMPLE[SearchSettings]
    write_settings(tmp_path / "c.toml", built, "one line\nanother")
    path = tmp_path / "c.toml"
    first, _, rest = path.read_text().partition("\n")
    assert first.startswith("# checksum: sha256:")
    assert rest.startswith("# one line\n# another\n")
    known = read_settings(path, SearchSettings)
    changed = rest.replace("layers = 5", "layers = 6")
    path.write_text(f"{first}\n{changed}")
    with pytest.raises(InputError, match=r"c.toml was changed or damaged.*remove its first line$"):
        read_settings(path, SearchSettings)
    path.write_text(changed)
    assert read_settings(path, SearchSettings)["network"] == {**known["network"], "layers": 6}
    path.write_text(f"{first}\n{rest}")
    assert structure(read_settings(tmp_path / "c.toml", SearchSettings), SearchSettings, complete=False) == built


def test_a_path_that_is_not_utf8_is_one_line(tmp_path: Path) -> None:
    source = DataSource(os.fsdecode(b"/data/\xff"))
    with pytest.raises(InputError, match=r"the path '/data/.udcff' is not UTF-8; a TOML file cannot hold it"):
        write_settings(tmp_path / "c.toml", TrainSettings(source), "a comment")
    assert not list(tmp_path.iterdir())


def test_what_comes_later_wins_object_by_object() -> None:
    assert merged({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"c": 3}, "d": [2]}) == {"a": {"b": 1, "c": 3}, "d": [2]}


def test_settings_know_their_leaves() -> None:
    known = dict(leaves(SearchSettings))
    assert {"data.source", "targets", "evolution.rates.node", "network.resolution"} <= known.keys()
    assert "evolution" not in known
    assert known["evolution.epochs"].setting.unit == "epochs"
    assert "genotype" in dict(leaves(TrainSettings))
    assert issubclass(SearchSettings, Settings)


def test_what_helps_against_a_problem_of_a_part_comes_with_the_whole() -> None:
    values = {"evolution": {"epochs": 3, "warmup_epochs": 5}, "data": {"source": "fashion-mini"}}
    with pytest.raises(InputError, match="evolution: 3 epochs leave no generation after 5") as found:
        structure(values, SearchSettings, complete=False)
    # The default is ten epochs in a generation.
    assert (found.value.remedy, found.value.about) == ("fewer-warm-up", {"least": 15})
    # In a damaged record, other settings do not help.
    with pytest.raises(RunError, match="3 epochs leave no generation") as of_file:
        structure(values, SearchSettings, "run.json", RunError, complete=False)
    assert of_file.value.remedy is None
