"""What helps against an error, in the words of the command line: the options and commands to use."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from cars_hw.errors import CarsHwError, Remedy

HINTS: Final[Mapping[Remedy, str]] = {
    "accept-changes": "restore them; or start a new run with: cars-hw search; or go on with the images as they are "
    "now, which the run notes, with: cars-hw train {run} --accept-changes (export takes the option, too)",
    "accept-digest": "if its maker states this SHA-256, or you trust the address, run: cars-hw runner fetch "
    "--from {address} --sha256 {sha256}",
    "check-data": "list everything with: cars-hw data check {folder}",
    "choose-size": "choose one with --channels and --layers",
    "choose-size-or-resolution": "choose one with --channels, --layers and --resolution",
    "delete-steps": "delete it; only the list of commands in the report is lost",
    "download": "add --download to fetch it",
    "energy-again": "delete it and measure the energy again",
    "export": "first run: cars-hw export {run}",
    "export-again": "export the model again with: cars-hw export",
    "fewer-threads": "use fewer --threads",
    "fewer-warm-up": "give at least {least} --epochs, or fewer --warmup-epochs",
    "finish-search": "finish it with: cars-hw search --resume",
    "fit-channels": "without a table, add --in-channels {number}; with a table, make it again with: cars-hw "
    "profile --in-channels {number}; or keep the network as a proxy with --proxy",
    "fit-classes": "without a table, add --classes {number}; with a table, make it again with: cars-hw "
    "profile --classes {number}; or keep the network as a proxy with --proxy",
    "get-adb": "install the platform-tools of Android (developer.android.com/tools/releases/platform-tools), or "
    "use a cable",
    "get-runner": "get one with `cars-hw runner fetch` or `cars-hw runner use PATH`; see: cars-hw runner --help",
    "hold-out": "add --hold-out 0.1, and --from-scratch to train the run's networks in the same way",
    "install-app": "install the APK of benchmark_model with: adb install -r -d -g "
    "android_aarch64_benchmark_model.apk; or leave out +app",
    "int8": "add --precision int8",
    "larger-batch": "use a larger --batch-size, or start fewer processes",
    "larger-network": "use a smaller --at-least, or profile larger networks: --channels, --layers",
    "larger-sizes": "give a smaller --latency, or allow larger networks: --channels, --layers, --resolution",
    "less-memory": "use a smaller --batch-size, or fewer --channels or --layers",
    "less-memory-or-replay": "use --replay off, a smaller --batch-size, or fewer --channels or --layers",
    "longer-energy": "allow longer windows with --longest-window, or a larger error with --max-error",
    "lower-learning-rate": "train again with a lower --learning-rate, or with --training-precision float32",
    "measure-energy": "measure it with: cars-hw energy --table TABLE",
    "meter-charge": "add --meter charge",
    "more-time": "give --within {least} or more, fewer images, or smaller networks",
    "moved-images": "give the folder that holds them now with --data",
    "one-depth": "give one number of --layers",
    "one-resolution": "give one --resolution",
    "other-image-cache": "or choose another folder with --image-cache",
    "other-images": "leave --data out, or start a new run with: cars-hw search",
    "other-out": "choose another folder with --out",
    "other-teacher-resolution": "give another --teacher-resolution",
    "pair": "pair once, with the address and the code of the phone's dialog: cars-hw devices --pair HOST:PORT "
    "--code CODE; then: adb connect {address}",
    "phone-by-network": "for example: adb tcpip 5555, then unplug it, and add --device android:HOST:5555",
    "precision": "train with --training-precision float32 or bf16",
    "profile": "restore it, or make one with: cars-hw profile",
    "profile-again": "delete it and profile again",
    "profile-sustained": "make one that has with: cars-hw profile --sustained",
    "read-rapl": "allow it until the next start of the machine: sudo chmod a+r {path}",
    "remake-front": "restore it from a copy; or delete it and front.json, and make both again with: cars-hw search "
    "--resume",
    "remake-study": "delete it, and make it again with the command that made it: cars-hw rank, cars-hw "
    "baselines, or cars-hw experiment front",
    "resize": "add --resolution to resize them",
    "restore-images": "restore them, or start a new run with: cars-hw search",
    "restore-run": "restore it from a copy, or search again with: cars-hw search",
    "resume": "then repeat the command (profile and search: with --resume)",
    "resume-or-delete": "resume it with --resume, or delete it to start over",
    "resume-or-other-folder": "resume it with --resume, or choose another folder with --out",
    "same-data-memory": "set --data-memory so that it is the same",
    "same-seed": "give --seed {seed}, and the validation_fraction of that run",
    "same-share": "give --share {share}",
    "same-settings": "resume with the same settings, or start a new run with another --out",
    "search": "make one with: cars-hw search",
    "skip-unreadable": "list all of them with: cars-hw data check {folder}; or leave them out with "
    "--skip-unreadable",
    "smaller-network": "allow at least that, or profile a smaller network: --channels, --layers, --resolution",
    "store-images": "leave out --image-cache off, or raise --data-memory if there is memory",
    "store-runner": "store the tool again with: cars-hw runner use PATH",
    "train": "first run: cars-hw train {run}",
    "train-again": "delete it, and train the network again with: cars-hw train",
    "train-changed": "first train it on the images as they are now: cars-hw train {run} --accept-changes",
    "train-on-cpu": "train with --on cpu",
    "verify-again": "delete it, and measure the models again with: cars-hw verify",
    "widen-operations": "give --widen operations or none, or several --channels or --layers",
    "zoo": "`cars-hw zoo` lists the published genotypes",
}


def message_of(error: CarsHwError) -> str:
    """Return the message of ``error`` in one line, and what helps."""
    return with_hint(" ".join(str(error).splitlines()), error.remedy, error.about)


def with_hint(message: str, remedy: Remedy | None, about: Mapping[str, object] = MappingProxyType({})) -> str:
    """Return ``message`` and the words for ``remedy``, which take their values from ``about``."""
    # The hints are commands: a path with a space is one word of them.
    words = {name: shlex.quote(str(value)) for name, value in about.items()}
    return message if remedy is None else f"{message}; {HINTS[remedy].format_map(words)}"
