"""A folder that a model hub takes as it is: weights, card, model files, and a README with the hub's metadata."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from cars_hw.config.files import replacing, require_writable, write_text
from cars_hw.errors import InputError
from cars_hw.export.card import ModelCard, card_path
from cars_hw.export.export import Exported
from cars_hw.export.model import CONFIG, MODEL, WEIGHTS, Model
from cars_hw.formatting import accuracy_text, milliseconds, printable
from cars_hw.nn.cost import network_cost
from cars_hw.significance import interval_of

README: Final = "README.md"

KNOWN: Final = frozenset({README, CONFIG, "LICENSE"})
"""What may lie in a folder that is written again, besides hidden files and those of the model."""


def write_hub_folder(
    model: Model, folder: Path | str, *, name: str, data: str | None = None, exported: Sequence[Exported] = ()
) -> Path:
    """Write ``model`` to ``folder`` as a model hub takes it, and return the folder.

    It has the weights with their card (``model.safetensors``), the card alone (``config.json``), a README with the
    metadata of the Hugging Face hub, and copies of the ``exported`` model files with their cards, under the name
    ``model``. ``name`` is the model's title, and ``data`` the name of the images; without it, the metadata have no
    accuracy, as the hub wants both. :func:`cars_hw.load_model` reads the folder.

    Raises:
        InputError: the folder has other files, or cannot be written.
    """
    folder = Path(folder).expanduser()
    files = {}
    for one in exported:
        files[f"model{_end(one)}"] = one.path
        files[card_path(Path(f"model{_end(one)}")).name] = card_path(one.path)
    _require_own(folder)
    require_writable(folder / README)
    for path in sorted(folder.glob("model.*")):
        # Of an earlier call, with other weights.
        if path.name not in files and path.name != WEIGHTS:
            path.unlink()
    card = model.save(folder / WEIGHTS)
    for target, path in files.items():
        with replacing(folder / target) as temporary:
            shutil.copyfile(path, temporary)
    MODEL.write_record(folder / CONFIG, card)
    write_text(folder / README, "\n".join(_readme(card, name, data, exported)) + "\n")
    return folder


def _require_own(folder: Path) -> None:
    """Check that ``folder`` is new, or has only what an earlier call may have written.

    Raises:
        InputError: it has something else.
    """
    if not folder.is_dir():
        return
    names = sorted(path.name for path in folder.iterdir())
    others = [name for name in names if name not in KNOWN and not name.startswith((".", "model."))]
    if others:
        raise InputError(f"{folder} has other files, such as {others[0]}; give another folder")


def _readme(card: ModelCard, name: str, data: str | None, exported: Sequence[Exported]) -> Iterator[str]:
    yield "---"
    for key, value in _metadata(card, name, data, exported).items():
        # JSON is YAML, and quotes whatever a name may hold.
        yield f"{key}: {json.dumps(value, ensure_ascii=False)}"
    yield "---"
    yield ""
    yield f"# {printable(name)}"
    yield ""
    cost = network_cost(card.network, card.genotype)
    yield (
        f"A convolutional network for image classification: {card.network.describe()}. "
        "[cars-hw](https://github.com/cars-hw/cars-hw) found it by hardware-aware neural architecture search."
    )
    yield ""
    yield "| figure | value |"
    yield "|---|---|"
    if card.accuracy is not None:
        interval = interval_of(card.accuracy, card.test_images)
        images = "" if card.test_images is None else f", on {card.test_images:,} test images"
        yield f"| accuracy (95% interval){images} | {accuracy_text(card.accuracy, interval)} |"
    yield f"| parameters | {cost.parameters:,} |"
    yield f"| multiply-adds | {cost.multiply_adds:,} |"
    for one in exported:
        for latency in one.card.latencies:
            ms, kind = (
                (latency.predicted_ms, "predicted")
                if latency.measured_ms is None
                else (latency.measured_ms, "measured")
            )
            where = f"{latency.device}, {latency.threads} thread{'' if latency.threads == 1 else 's'}"
            what = f"latency of `model{_end(one)}` on {where}, {latency.state} state, {kind}"
            yield f"| {what} | {milliseconds(ms)} |"
    yield ""
    yield "## Use"
    yield ""
    yield "```python"
    yield "import cars_hw"
    yield ""
    yield "model = cars_hw.load_model(FOLDER)  # this folder, for example from huggingface_hub.snapshot_download"
    yield 'logits = model(model.read("image.png"))'
    yield "print(model.card.class_names[int(logits.argmax())])"
    yield "```"
    yield ""
    yield f"Classes: {', '.join(printable(one) for one in card.class_names)}."
    yield ""
    yield (
        f"`{CONFIG}` describes the network, its preprocessing and its classes. `{WEIGHTS}` has the same "
        "description in its metadata. " + _of_files(exported)
    ).rstrip()


def _of_files(exported: Sequence[Exported]) -> str:
    if not exported:
        return ""
    files = ", ".join(f"`model{_end(one)}`" for one in exported)
    return f"Cards of their own describe the exported models: {files}."


def _end(exported: Exported) -> str:
    """Return what follows the network's name in the name of a model file: ``.int8.onnx``."""
    return f"{'.int8' if exported.card.precision == 'int8' else ''}{exported.path.suffix}"


def _metadata(card: ModelCard, name: str, data: str | None, exported: Sequence[Exported]) -> dict[str, object]:
    formats = dict.fromkeys(one.path.suffix.removeprefix(".") for one in exported)
    found: dict[str, object] = {
        "library_name": "cars-hw",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "neural-architecture-search", *formats],
    }
    if card.accuracy is not None and data is not None:
        result = {
            "task": {"type": "image-classification"},
            "dataset": {"type": data, "name": data},
            "metrics": [{"type": "accuracy", "value": card.accuracy}],
        }
        found["metrics"] = ["accuracy"]
        found["model-index"] = [{"name": name, "results": [result]}]
    return found
