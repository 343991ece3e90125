"""Everything that cars-hw raises on purpose, under one root.

::

    CarsHwError
    ├── InputError              what was given cannot be used
    │   ├── GenotypeError       unknown name, illegal cell, unreadable text
    │   ├── SpecError           a NetworkSpec that no network can be built for
    │   ├── UnitError           a latency without a unit, or with a wrong one
    │   └── DatasetError        empty folder, one class, unreadable image, not downloaded
    │       └── DataChangedError images that are not those of the run
    ├── TableError              a latency table that is corrupt, newer, or for something else
    ├── BudgetError             no architecture keeps to the budget; carries the smallest latency
    ├── DeviceError             a device that is missing, busy or fails
    │   ├── NoDeviceError       no attached device has the name
    │   ├── SeveralDevicesError more than one has
    │   ├── UnauthorizedError   the phone has not allowed this computer
    │   ├── OfflineError        the phone is attached and does not answer
    │   ├── UsbHeldError        another program, such as an adb server, holds the USB port
    │   ├── ConnectionLostError the connection broke and did not come back
    │   ├── DeviceStateError    too hot, too little battery, too little space
    │   └── RunnerError         the program that runs models is missing, crashes, hangs, or prints unknown text
    ├── TrainingError           a training whose loss is no longer a number
    ├── ExportError             an exported file whose outputs differ from those of the network
    └── RunError                a run folder that exists, has other settings, or is incomplete

Every message is one line that states what happened. What helps is a :data:`Remedy`, for which a caller has its own
words: the command line names the option or the command.
"""

from __future__ import annotations

from typing import Literal

Remedy = Literal[
    "accept-changes",
    "accept-digest",
    "check-data",
    "choose-size",
    "choose-size-or-resolution",
    "delete-steps",
    "download",
    "energy-again",
    "export",
    "export-again",
    "fewer-threads",
    "fewer-warm-up",
    "finish-search",
    "fit-channels",
    "fit-classes",
    "get-adb",
    "get-runner",
    "hold-out",
    "install-app",
    "int8",
    "larger-batch",
    "larger-network",
    "larger-sizes",
    "less-memory",
    "less-memory-or-replay",
    "longer-energy",
    "lower-learning-rate",
    "measure-energy",
    "meter-charge",
    "more-time",
    "moved-images",
    "one-depth",
    "one-resolution",
    "other-image-cache",
    "other-images",
    "other-out",
    "other-teacher-resolution",
    "pair",
    "phone-by-network",
    "precision",
    "profile",
    "profile-again",
    "profile-sustained",
    "read-rapl",
    "remake-front",
    "remake-study",
    "resize",
    "restore-images",
    "restore-run",
    "resume",
    "resume-or-delete",
    "resume-or-other-folder",
    "same-data-memory",
    "same-seed",
    "same-share",
    "same-settings",
    "search",
    "skip-unreadable",
    "smaller-network",
    "store-images",
    "store-runner",
    "train",
    "train-again",
    "train-changed",
    "train-on-cpu",
    "verify-again",
    "widen-operations",
    "zoo",
]
"""What helps against an error: an identifier, since how it is done depends on the caller."""


class CarsHwError(Exception):
    """Root of all errors that cars-hw raises on purpose.

    ``remedy`` says what helps, None where the message alone tells it. ``about`` has the values that the words for
    the remedy need, such as the path of the run.
    """

    def __init__(self, message: str = "", *, remedy: Remedy | None = None, **about: object) -> None:
        super().__init__(message)
        self.remedy = remedy
        self.about = about


class InputError(CarsHwError):
    """An argument that cannot be used."""


class GenotypeError(InputError):
    """A genotype that is unknown, illegal or unreadable."""


class SpecError(InputError):
    """A NetworkSpec that no network can be built for."""


class UnitError(InputError):
    """A latency without a unit, or with one that is not understood."""


class DatasetError(InputError):
    """A data set that is missing, empty, or has unreadable images."""


class DataChangedError(DatasetError):
    """Images that are not those of the run: they were changed since, or are others."""


class TableError(CarsHwError):
    """A latency table that is corrupt, of a newer schema, incomplete, or for another network or device."""


class BudgetError(CarsHwError):
    """No architecture keeps to the budget.

    ``smallest`` holds the upper bounds, in milliseconds, of the fastest architecture that was found, in the order
    of the budgets.
    """

    # A worker sends its errors to the process that started it, and they are made anew from the message alone.
    def __init__(
        self,
        message: str = "",
        smallest: tuple[float, ...] = (),
        *,
        remedy: Remedy | None = None,
        **about: object,
    ) -> None:
        super().__init__(message, remedy=remedy, **about)
        self.smallest = smallest


class DeviceError(CarsHwError):
    """A device that is missing, busy, or that fails while it measures."""


class NoDeviceError(DeviceError):
    """No attached device has the name."""


class SeveralDevicesError(DeviceError):
    """More than one device has the name."""


class UnauthorizedError(DeviceError):
    """The phone has not allowed this computer."""


class OfflineError(DeviceError):
    """The phone is attached and does not answer."""


class UsbHeldError(DeviceError):
    """Another program, such as an adb server, holds the phone's USB port."""


class ConnectionLostError(DeviceError):
    """The connection broke and did not come back."""


class DeviceStateError(DeviceError):
    """The device cannot measure now: too hot, too little battery, too little space."""


class RunnerError(DeviceError):
    """The program that runs models is missing, crashes, hangs, or prints unknown text."""


class TrainingError(CarsHwError):
    """A training whose loss is no longer a number."""


class ExportError(CarsHwError):
    """An exported file whose outputs differ from those of the network."""


class RunError(CarsHwError):
    """A run folder that exists already, has other settings, or is incomplete."""
