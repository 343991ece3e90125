"""Make docs/reference/files.md, the fields of every file that cars-hw writes, from the dataclasses behind them.

::

    .venv/bin/python tools/make_files_page.py

``tests/docs/test_commands_page.py`` fails if the page differs from what this writes.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any, NamedTuple

from docstring_roles import markdown

from cars_hw.config import data, decoding, measurement, search, training
from cars_hw.config.files import write_text
from cars_hw.data import manifest
from cars_hw.devices import protocol
from cars_hw.evolution.halving import Rungs
from cars_hw.evolution.nominees import Nominee
from cars_hw.evolution.population import Member
from cars_hw.export import card
from cars_hw.latency import sustained as under_load
from cars_hw.latency import table
from cars_hw.measurement import states, sustained
from cars_hw.pipeline import larger_networks, latency_target, networks, records, run_folder, run_formats, time_plan
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.studies.budget_choice import Best, BudgetChoice
from cars_hw.studies.front_membership import Contestant, EqualCost, FrontComparison, OutOfRange
from cars_hw.studies.ranking import Ranking
from cars_hw.studies.strategy_comparison import StrategyComparison

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "files.md"
REMAKE = ".venv/bin/python tools/make_files_page.py"

INTRODUCTION = f"""# File formats

The records of this page are JSON with UTF-8 text. Weights are safetensors, checkpoints are in torch's format,
exported models are ONNX or TFLite, `config.toml` is TOML, and the report is HTML. Every file is written to a
temporary name and then renamed, so an interruption leaves no partial file. Latencies are milliseconds, accuracies
and errors are fractions, and times are in ISO 8601 format.

This page is made from the code by `{REMAKE}`. A test fails if it is out of date.
[JSON schemas](schemas.md) describe the same files for programs.
"""

CHECKSUMS = f"""## Checksums

Every file that cars-hw reads has a SHA-256. Reading fails with the name of the file if it is wrong, so a file that
was edited by hand is refused, too.

| file | place of the checksum |
|---|---|
| a JSON record | the key `checksum` beside `format`, `version` and the fields |
| `history.jsonl`, `steps.jsonl` | the first line, with `format`, `version` and the number of `lines` |
| `trained/NAME.safetensors` | `weights_digest` of `trained/NAME.json` |
| `trained/NAME.last.safetensors` | `last_weights_digest` of `trained/NAME.json` |
| an exported model | `digest` of its card |
| the card in the metadata of `trained/NAME.safetensors` | its `checksum`; `digest` is that of the weights alone |
| `checkpoint/*.pt` | the first line of the file; the rest is in torch's format |
| `config.toml` | the first line, a comment; a file without that line is read, too |

The `checksum` of a record is that of its canonical JSON without that key: keys sorted, no spaces, characters beyond
ASCII escaped. In `history.jsonl` and `steps.jsonl` it is that of `{{"lines": [...]}}`, the list of the other lines.

All files of a run have one version: {run_formats.SCHEMA}. A run of another version is refused.
"""

GENOTYPE = """## Genotype

Every file stores a genotype as an object with the keys `normal` and `reduce`. Each is a list of eight pairs
`[operation, source]`, two per node, in the order of the nodes. Sources 0 and 1 are the inputs of the cell; source
`n + 2` is node `n`.

```json
{"normal": [["sep_conv_3x3", 0], ["skip_connect", 1], "..."], "reduce": ["..."]}
```

A genotype of blocks has the keys `family` and `blocks`: a choice for each block, or `skip`, see
[cell families](cell-families.md#blocks-that-a-search-chooses).

```json
{"family": "mobile", "blocks": ["k3_e1", "k5_e6_se", "skip", "..."]}
```
"""


class Section(NamedTuple):
    """A file of the page: its heading, what stands before the fields, and the classes whose fields it has."""

    heading: str
    text: str
    classes: tuple[type, ...]


SECTIONS = (
    Section(
        "Latency table",
        f'`cars-hw profile --out` writes it. The file has the keys `format` ("{table.TABLE.name}"), `version` '
        f"({table.TABLE.version}), `checksum` (of the content), and the fields of `LatencyTable`. Reading fails if "
        "the checksum is wrong or the version is unknown.",
        (
            table.LatencyTable,
            table.CalibrationNetwork,
            table.Reference,
            table.Coefficients,
            protocol.Measurement,
            protocol.Sample,
            states.Machine,
            states.MachineState,
            under_load.SustainedState,
            under_load.LoadedNetwork,
            sustained.Sustained,
            NetworkSpec,
        ),
    ),
    Section(
        "data.json",
        "The images of a run, written once by the search; classes, normalisation and splits of every later step "
        "are those of this file. `target-data.json` is the same for the images of the exported networks, after a "
        "search with `--proxy`. `accepted` of `data-changes.json` has an `AcceptedChange` for each training or "
        "export with `--accept-changes`.",
        (
            manifest.DataManifest,
            data.DataSource,
            manifest.Split,
            manifest.AcceptedChange,
            manifest.Change,
        ),
    ),
    Section(
        "start.json",
        "What the search took from an earlier run, if it started from one (`--from-run`).",
        (records.StartRecord,),
    ),
    Section(
        "final.json",
        "The final stage of a search, if it has one.",
        (records.FinalStage, Rungs, Nominee),
    ),
    Section(
        "front.json",
        "The Pareto front of a run: `networks`, `rejected` and `larger`. `cars-hw search --json` prints the same.",
        (
            networks.Front,
            networks.FrontNetwork,
            latency_target.LatencyEstimate,
            larger_networks.LargerNetworks,
            larger_networks.Compared,
            larger_networks.ShortTraining,
        ),
    ),
    Section(
        "history.jsonl",
        "After the line with the checksum, one line per generation.",
        (records.GenerationRecord, Member),
    ),
    Section(
        "trained/NAME.json",
        "The record of a trained network. Its weights are in `NAME.safetensors`.",
        (networks.TrainedNetwork,),
    ),
    Section("verified.json", "`models` has one `Verified` per model and device.", (records.Verified,)),
    Section("ranking.json", "The result of `cars-hw rank`.", (Ranking,)),
    Section("baselines.json", "The result of `cars-hw baselines`.", (StrategyComparison,)),
    Section(
        "comparison/front.json",
        "The result of `cars-hw experiment front`; with `--out`, it is in that folder. `at_budgets` has a "
        "`BudgetChoice` for each budget.",
        (FrontComparison, Contestant, OutOfRange, EqualCost, BudgetChoice, Best),
    ),
    Section(
        "Card of a model",
        "The file `MODEL.json` beside an exported model, such as `net-01.onnx.json`.",
        (
            card.ModelCard,
            card.Preprocessing,
            decoding.Decoding,
            decoding.Resizing,
            card.CardLatency,
            card.Augmentations,
        ),
    ),
    Section(
        "Settings",
        "`run.json` stores the settings of a run under `configuration`, and its date and versions under `about`.",
        (
            records.RunConfiguration,
            records.TargetRecord,
            records.RunAbout,
            time_plan.TimePlan,
            time_plan.StageSeconds,
            search.EvolutionSettings,
            search.VariationRates,
            search.FinalSettings,
            training.SharedTraining,
            training.Recipe,
            measurement.MeasurePlan,
        ),
    ),
)


def page() -> str:
    """Return the page, Markdown."""
    parts = [INTRODUCTION, CHECKSUMS, "## Run folder\n", run_tree(), GENOTYPE]
    for section in SECTIONS:
        parts.append(f"## {section.heading}\n\n{section.text}\n")
        parts += [class_part(one) for one in section.classes]
    return "\n".join(parts).rstrip() + "\n"


def run_tree() -> str:
    """Return the table of a run folder's files, which the docstring of its module lists."""
    listing = markdown((run_folder.__doc__ or "").partition("::\n")[2])
    rows = [re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in listing.splitlines() if line.strip()]
    # Two spaces end a name: with one, the content would become a part of the name.
    cells = [f"| `{name}` | {content} |" for name, content in rows]
    return "\n".join(["| file | content |", "|---|---|", *cells]) + "\n"


def class_part(one: type) -> str:
    """Return a class's docstring and the table of its fields."""
    text = markdown(inspect.getdoc(one) or "")
    # What it raises is of interest in Python only.
    text = re.split(r"^(?:Raises|Attributes):$", text, flags=re.MULTILINE)[0].strip()
    found = fields_of(one)
    columns = [
        "field",
        "type",
        "default",
        *(["meaning"] if any(field.meaning.partition("Unit:")[0].strip() for field in found) else []),
    ]
    rows = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    rows += ["| " + " | ".join(field.cells()[: len(columns)]) + " |" for field in found]
    return f"### {one.__name__}\n\n{text}\n\n" + "\n".join(rows) + "\n"


class FileField(NamedTuple):
    """A field of a file: its name, type and default, and its help where it is a setting."""

    name: str
    kind: str
    default: str
    meaning: str

    def cells(self) -> list[str]:
        """Return the cells of its row."""
        kind = self.kind.replace("|", "\\|")
        return [f"`{self.name}`", f"`{kind}`", f"`{self.default}`" if self.default else "", self.meaning]


def fields_of(one: type) -> list[FileField]:
    """Return the fields of a dataclass or a named tuple, by their names in a file."""
    if dataclasses.is_dataclass(one):
        keys: dict[str, str] = getattr(one, "PLAIN_NAMES", {})
        return [
            FileField(keys.get(field.name, field.name), str(field.type), default_of(field), meaning_of(field))
            for field in dataclasses.fields(one)
        ]
    defaults: dict[str, Any] = getattr(one, "_field_defaults", {})
    return [
        FileField(name, getattr(kind, "__forward_arg__", str(kind)), repr(defaults.get(name, "")).strip("'"), "")
        for name, kind in inspect.get_annotations(one).items()
    ]


def default_of(field: dataclasses.Field[Any]) -> str:
    """Return the default as text, empty where there is none."""
    if dataclasses.is_dataclass(field.default):
        return f"{type(field.default).__name__}(...)"
    if field.default is not dataclasses.MISSING:
        return repr(field.default)
    if field.default_factory is dataclasses.MISSING:
        return ""
    made = field.default_factory()
    return repr(made) if isinstance(made, (dict, tuple, list)) else f"{type(made).__name__}()"


def meaning_of(field: dataclasses.Field[Any]) -> str:
    """Return the help and the unit of a setting, empty for any other field."""
    about = field.metadata.get("setting")
    if about is None:
        return ""
    return about.help + (f" Unit: {about.unit}." if about.unit else "")


if __name__ == "__main__":
    write_text(PAGE, page())
    print(f"{PAGE}: {sum(len(section.classes) for section in SECTIONS)} classes")
