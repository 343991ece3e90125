"""docs/how-to/use-from-python.md has every name of the package, and none that the package lacks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import cars_hw

TYPES = (
    "Cost",
    "DataBundle",
    "Dataset",
    "Device",
    "EvolutionSettings",
    "FrontNetwork",
    "Measurement",
    "ModelCard",
    "Preset",
    "Ranking",
    "SharedTraining",
    "StrategyComparison",
    "TrainedNetwork",
    "Validation",
)
"""What other names return or take; the examples have their values."""

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "how-to" / "use-from-python.md"


@pytest.fixture(scope="module")
def text() -> str:
    return PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", cars_hw.__all__)
def test_a_name_is_explained_and_used(name: str, text: str) -> None:
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert f"`{name}`" in prose, f"docs/how-to/use-from-python.md does not say what cars_hw.{name} is for"
    pages = text + (PAGE.parent / "extend.md").read_text(encoding="utf-8")
    examples = "".join(re.findall(r"^```python$(.*?)^```$", pages, flags=re.MULTILINE | re.DOTALL))
    if name not in TYPES:
        assert re.search(rf"\b{name}\b", examples), f"no example of the docs uses cars_hw.{name}"


def test_the_page_speaks_of_no_name_that_there_is_not(text: str) -> None:
    for name in set(re.findall(r"\bcars_hw\.([A-Za-z_]+)", text)):
        assert hasattr(cars_hw, name) or (Path(cars_hw.__file__).parent / name).exists(), name
    for names in re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", text, flags=re.MULTILINE):
        for name in re.findall(r"\w+", names):
            assert name in cars_hw.__all__, f"cars_hw has no {name}"


def test_the_reference_lists_every_name_once() -> None:
    page = PAGE.parent.parent / "reference" / "api.md"
    listed = re.findall(r"^::: cars_hw\.(\w+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sorted(listed) == sorted(cars_hw.__all__), "list the public API in docs/reference/api.md"
