"""Make docs/reference/schemas, a JSON Schema of every file and of every ``--json`` output, and their page.

::

    .venv/bin/python tools/make_schemas.py

The schemas are made from the classes that are written and printed. ``tests/docs/test_schemas.py`` fails if one is
out of date, or if a format of a file or a command with ``--json`` has none. Every test that runs a command with
``--json`` compares what it prints with the schema.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import json_schema
from json_schema import Definitions, Schema

from cars_hw.cli import outputs
from cars_hw.config.checksummed import DIGEST, ChecksummedFormat
from cars_hw.config.evaluation import ClassCounts
from cars_hw.config.files import write_text
from cars_hw.config.search import EvolutionSettings, FinalSettings
from cars_hw.data import image_store, streamed
from cars_hw.data.check import FolderCheck
from cars_hw.data.manifest import AcceptedChanges, DataManifest
from cars_hw.export import card, model
from cars_hw.latency import LatencyTable, comparison, table, validation
from cars_hw.latency import energy as latency_energy
from cars_hw.measurement import energy_journal, journal
from cars_hw.pipeline import estimate, networks, records, run_formats
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.studies import (
    comparison_range,
    front_membership,
    learning_curves,
    paper_tables,
    published_front,
    reference_training,
    small_model_trap,
)
from cars_hw.studies.ranking import Ranking
from cars_hw.studies.strategy_comparison import StrategyComparison

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "reference" / "schemas"
PAGE = ROOT / "docs" / "reference" / "schemas.md"
REMAKE = ".venv/bin/python tools/make_schemas.py"
ADDRESS = "https://cars-hw.github.io/cars-hw/reference/schemas"
END = ".schema.json"


Content = Callable[[Definitions], Schema]
"""A part of a schema; the definitions that it refers to go to its argument."""


def one(kind: Any) -> Content:  # noqa: ANN401 -- any type
    """Return the content that is a value of the type ``kind``."""
    return lambda definitions: definitions.of(kind)


def many(content: Content) -> Content:
    """Return the content that is a list of ``content``."""
    return lambda definitions: {"type": "array", "items": content(definitions)}


def either(*contents: Content) -> Content:
    """Return the content that is one of ``contents``."""
    return lambda definitions: {"oneOf": [content(definitions) for content in contents]}


def beside(kind: Any, **more: Any) -> Content:  # noqa: ANN401 -- any types
    """Return the content that is an object of the type ``kind`` with further fields, by their types."""
    return lambda definitions: with_fields(
        definitions.of(kind), {name: definitions.of(one) for name, one in more.items()}, definitions
    )


def fields(**kinds: Any) -> Content:  # noqa: ANN401 -- any types
    """Return the content that is an object with these fields, by their types."""
    closed: Schema = {"type": "object", "additionalProperties": False}
    return lambda definitions: with_fields(
        closed, {name: definitions.of(one) for name, one in kinds.items()}, definitions
    )


def with_fields(schema: Schema, more: Mapping[str, Schema], definitions: Definitions) -> Schema:
    """Return ``schema``, that of an object, with further fields, which are always there."""
    if "$ref" in schema:
        return with_fields(definitions.schemas[schema["$ref"].rpartition("/")[2]], more, definitions)
    for alternatives in ("anyOf", "oneOf"):
        if alternatives in schema:
            return {alternatives: [with_fields(each, more, definitions) for each in schema[alternatives]]}
    return {
        **schema,
        "properties": {**more, **schema.get("properties", {})},
        "required": [*more, *schema.get("required", ())],
    }


@dataclass(frozen=True)
class FileSchema:
    """The schema of a kind of file.

    ``files`` says where it lies. ``content`` is what it holds beside format, version and checksum. In a file of
    ``lines``, the schema is that of each line. ``missing`` has for a class the fields that this file may lack.
    """

    name: str
    files: str
    form: ChecksummedFormat
    content: Content
    lines: bool = False
    missing: Mapping[type, frozenset[str]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What it is the schema of."""
        return self.files

    def schema(self) -> Schema:
        """Return the schema."""
        definitions = Definitions(self.missing)
        head: dict[str, Schema] = {
            "format": {"const": self.form.name},
            "version": {"const": self.form.version},
        }
        checksum: dict[str, Schema] = {"checksum": {"type": "string", "pattern": f"^{DIGEST}$"}}
        content = self.content(definitions)
        if self.lines:
            count = {"lines": {"type": "integer", "minimum": 0}}
            closed: Schema = {"type": "object", "description": "The first line.", "additionalProperties": False}
            content = {"oneOf": [with_fields(closed, {**head, **count, **checksum}, definitions), content]}
        else:
            content = with_fields(content, {**head, **checksum}, definitions)
        return json_schema.document(self.title, address(self.name), content, definitions)


@dataclass(frozen=True)
class OutputSchema:
    """The schema of what a command prints with ``--json``."""

    command: str
    content: Content

    @property
    def name(self) -> str:
        """The name of its file, without the end."""
        return f"output-{self.command.replace(' ', '-')}"

    @property
    def title(self) -> str:
        """What it is the schema of."""
        return f"cars-hw {self.command} --json"

    def schema(self) -> Schema:
        """Return the schema."""
        definitions = Definitions()
        return json_schema.document(self.title, address(self.name), self.content(definitions), definitions)


_STUDY = either(one(Ranking), one(StrategyComparison))

FILES = (
    FileSchema("run", "run.json", run_formats.RUN, one(records.RunRecord)),
    FileSchema("data", "data.json, target-data.json", run_formats.DATA, one(DataManifest)),
    FileSchema("data-changes", "data-changes.json", run_formats.DATA_CHANGES, one(AcceptedChanges)),
    FileSchema("steps", "steps.jsonl, each line", run_formats.STEPS, one(networks.Step), lines=True),
    FileSchema("start", "start.json", run_formats.START, one(records.StartRecord)),
    FileSchema(
        "history", "history.jsonl, each line", run_formats.HISTORY, one(records.GenerationRecord), lines=True
    ),
    FileSchema("final", "final.json", run_formats.FINAL, one(records.FinalStage)),
    FileSchema("final-result", "checkpoint/NAME.RUNG.json", run_formats.RESULT, one(ClassCounts)),
    FileSchema("front", "front.json", run_formats.FRONT, one(networks.Front)),
    FileSchema("trained", "trained/NAME.json", run_formats.TRAINED, one(networks.TrainedNetwork)),
    FileSchema("verified", "verified.json", run_formats.VERIFIED, one(records.VerifiedModels)),
    FileSchema("study", "ranking.json, baselines.json", run_formats.STUDY, _STUDY),
    FileSchema("card", "the card of an exported model, MODEL.json", card.CARD, one(card.ModelCard)),
    FileSchema(
        "model",
        "config.json of a folder for a model hub, and the metadata of NAME.safetensors",
        model.MODEL,
        one(card.ModelCard),
    ),
    FileSchema(
        "table",
        "a latency table, and tables/NUMBER.json of a run",
        table.TABLE,
        one(LatencyTable),
        missing={
            LatencyTable: frozenset({"sizes"}),
            NetworkSpec: frozenset({"depths"}),
            table.Coefficients: frozenset(table.NOTHING_ASSUMED),
        },
    ),
    FileSchema(
        "image-store",
        "index.json of stored images in the image cache",
        image_store.FORMAT,
        fields(
            about=Mapping[str, Any],
            shape=tuple[int, int, int, int],
            block=int,
            sums=tuple[int, ...],
            abouts=tuple[Any, ...],
            failed=tuple[int, ...],
        ),
    ),
    FileSchema(
        "image-store-levels",
        "levels-DIGEST.json of stored images in the image cache",
        streamed._LEVELS,
        fields(sums=str, levels=tuple[int, ...]),
    ),
    FileSchema("partial-profile", "an unfinished profile, beside its table", journal.PARTIAL, one(journal.Partial)),
    FileSchema(
        "partial-energy",
        "an unfinished measurement of energy, beside its table",
        energy_journal.PARTIAL,
        one(energy_journal.PartialEnergy),
    ),
    FileSchema(
        "validation",
        "the file of cars-hw validate --out",
        validation.VALIDATION,
        beside(validation.Validation, table=str, names=tuple[str, ...]),
    ),
    FileSchema(
        "comparison", "comparison/front.json", front_membership.COMPARISON, one(front_membership.FrontComparison)
    ),
    FileSchema(
        "reference-latencies",
        "comparison/reference-latencies.json",
        comparison_range.LATENCIES,
        one(comparison_range.ReferenceLatencies),
    ),
    FileSchema(
        "reference",
        "a trained network of torchvision in comparison/",
        reference_training.REFERENCE,
        one(reference_training.ReferenceRecord),
    ),
    FileSchema(
        "paper-tables",
        "the file of cars-hw experiment tables --out",
        paper_tables.TABLES,
        one(Mapping[str, paper_tables.ComputedTable]),
    ),
    FileSchema(
        "small-model-trap",
        "small-model-trap.json",
        small_model_trap.TRAP,
        beside(small_model_trap.Trap, configuration=records.RunConfiguration),
    ),
    FileSchema(
        "learning-curve",
        "a network of the small-model trap, after each epoch",
        learning_curves.CURVE,
        one(learning_curves.CurveRecord),
    ),
)

OUTPUTS = (
    OutputSchema("baselines", one(StrategyComparison)),
    OutputSchema("classify", many(either(one(outputs.ClassifiedOutput), one(outputs.UnreadableOutput)))),
    OutputSchema("cost", many(one(outputs.CostOutput))),
    OutputSchema("data check", one(FolderCheck)),
    OutputSchema("energy", one(latency_energy.EnergyState)),
    OutputSchema("devices", many(one(outputs.DeviceOutput))),
    OutputSchema(
        "experiment front", either(one(front_membership.FrontComparison), one(published_front.FrontEstimate))
    ),
    OutputSchema("experiment small-model-trap", one(small_model_trap.Trap)),
    OutputSchema("experiment tables", one(Mapping[str, paper_tables.ComputedTable])),
    OutputSchema("export", many(beside(card.ModelCard, name=str, path=str))),
    OutputSchema("measure", many(one(outputs.MeasureOutput))),
    OutputSchema("plugins", many(one(outputs.PluginOutput))),
    OutputSchema(
        "predict",
        either(many(one(outputs.PredictOutput)), one(outputs.BoundsOutput), one(outputs.QuantileOutput)),
    ),
    OutputSchema("profile", either(one(outputs.ProfileOutput), many(one(outputs.ProfileOutput)))),
    OutputSchema("rank", one(Ranking)),
    OutputSchema("runner show", one(outputs.RunnerOutput | None)),
    OutputSchema(
        "search",
        either(one(networks.Front), beside(estimate.Estimate, evolution=EvolutionSettings, final=FinalSettings)),
    ),
    OutputSchema("table diff", one(comparison.TableDifference)),
    OutputSchema("table show", one(outputs.TableOutput)),
    OutputSchema("train", many(one(networks.TrainedNetwork))),
    OutputSchema("validate", beside(validation.Validation, table=str, names=tuple[str, ...])),
    OutputSchema("verify", many(one(records.Verified))),
    OutputSchema("zoo", one(Mapping[str, outputs.ZooOutput])),
)

SCHEMAS: tuple[FileSchema | OutputSchema, ...] = (*FILES, *OUTPUTS)

INTRODUCTION = f"""# JSON schemas

These schemas (JSON Schema, draft 2020-12) describe the JSON files and what commands print with `--json`. They are
made from the code by `{REMAKE}`. The tests compare the files and outputs of cars-hw with them. A schema names every
field, and refuses others. A new version of cars-hw may add fields, and the schemas of that version name them.

To check a file, install a validator, for example `pip install check-jsonschema`, and name the schema:

```text
check-jsonschema --schemafile {ADDRESS}/front{END} run/front.json
```

[File formats](files.md) describes the same files as text. The checksum of a file is not checked by a schema.
"""


def address(name: str) -> str:
    """Return where the schema ``name`` is published."""
    return f"{ADDRESS}/{name}{END}"


def text_of(schema: FileSchema | OutputSchema) -> str:
    """Return the content of the file of a schema."""
    return json.dumps(schema.schema(), indent=1, ensure_ascii=False) + "\n"


def page() -> str:
    """Return the page, Markdown."""
    parts = [INTRODUCTION]
    for heading, column, schemas in (("Files", "file", FILES), ("Output of commands", "command", OUTPUTS)):
        parts.append(f"## {heading}\n\n| {column} | schema |\n|---|---|")
        parts += [f"| {shown(each)} | [`{each.name}{END}`](schemas/{each.name}{END}) |" for each in schemas]
        parts.append("")
    return "\n".join(parts)


def shown(schema: FileSchema | OutputSchema) -> str:
    """Return what the page says of a schema."""
    return f"`{schema.title}`" if isinstance(schema, OutputSchema) else schema.title


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob(f"*{END}"):
        old.unlink()
    for each in SCHEMAS:
        write_text(FOLDER / f"{each.name}{END}", text_of(each))
    write_text(PAGE, page())
    print(f"{FOLDER}: {len(SCHEMAS)} schemas")
