"""Everything that cars-hw raises on purpose, under one root.

::

    CarsHwError
    ├── InputError              what was given cannot be used
    │   ├── GenotypeError       unknown name, illegal cell, unreadable text
    │   ├── SpecError           a NetworkSpec that no network can be built for
    │   ├── UnitError           a latency without a unit, or with a wrong one
    │   └── DatasetError        empty folder, one class, unreadable image, not downloaded
    ├── TableError              a latency table that is corrupt, newer, or for something else
    ├── BudgetError             no architecture keeps to the budget; carries the smallest latency
    ├── DeviceError             a device that is missing, busy or fails
    │   ├── NoDeviceError       nothing is attached that answers to the name
    │   ├── SeveralDevicesError more than one does
    │   ├── UnauthorizedError   the phone has not allowed this computer
    │   ├── OfflineError        the phone is there and does not answer
    │   ├── UsbHeldError        another program, such as an adb server, holds the USB port
    │   ├── ConnectionLostError the connection broke and did not come back
    │   ├── DeviceStateError    too hot, too little battery, no room
    │   └── RunnerError         what runs models on the device is missing, crashes, hangs or talks nonsense
    ├── TrainingError           a training that went astray
    ├── ExportError             an exported file that does not do what the network does
    └── RunError                a run folder that exists, is another's, or is incomplete

Every message is one line that says what happened and what to do next; the command line prints it and exits
with 1.
"""

from __future__ import annotations


class CarsHwError(Exception):
    """Root of all errors that cars-hw raises on purpose."""


class InputError(CarsHwError):
    """What was given cannot be used."""


class GenotypeError(InputError):
    """A genotype that is unknown, illegal or unreadable."""


class SpecError(InputError):
    """A NetworkSpec that no network can be built for."""


class UnitError(InputError):
    """A latency without a unit, or with one that is not understood."""


class DatasetError(InputError):
    """A data set that is missing, empty, or has unreadable images."""


class TableError(CarsHwError):
    """A latency table that is corrupt, of a newer schema, incomplete, or for another network or device."""


class BudgetError(CarsHwError):
    """No architecture keeps to the budget.

    ``smallest`` holds, in the budgets' order, the upper bounds in milliseconds of the fastest architecture
    that was found.
    """

    def __init__(self, message: str, smallest: tuple[float, ...]) -> None:
        super().__init__(message)
        self.smallest = smallest


class DeviceError(CarsHwError):
    """A device that is missing, busy, or that fails while it measures."""


class NoDeviceError(DeviceError):
    """Nothing is attached that answers to the name."""


class SeveralDevicesError(DeviceError):
    """More than one device answers to the name."""


class UnauthorizedError(DeviceError):
    """The phone has not allowed this computer."""


class OfflineError(DeviceError):
    """The phone is there and does not answer."""


class UsbHeldError(DeviceError):
    """Another program, such as an adb server, holds the phone's USB port."""


class ConnectionLostError(DeviceError):
    """The connection broke in the middle."""


class DeviceStateError(DeviceError):
    """The device is in no state to measure: too hot, too little battery, no room."""


class RunnerError(DeviceError):
    """What runs models on the device is missing, crashes, hangs or talks nonsense."""


class TrainingError(CarsHwError):
    """A training that went astray: its loss is no longer a number."""


class ExportError(CarsHwError):
    """An exported file that does not compute what the network computes."""


class RunError(CarsHwError):
    """A run folder that exists already, belongs to another configuration, or is incomplete."""
