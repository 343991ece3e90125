"""A phone for tests: the device side of ADB over TCP, a shell behind it, and a real runner of TFLite models.

It shares no code with the product: the protocol is written from its description, so that each side checks the
other, and Debian's ``adb`` checks both.
"""

from simulated_phone.adbd import Adbd, Faults
from simulated_phone.battery import Battery, Maker, truth_mj
from simulated_phone.phone import Phone, System
from simulated_phone.throttling import Throttling, truth_us

__all__ = [
    "Adbd",
    "Battery",
    "Faults",
    "Maker",
    "Phone",
    "System",
    "Throttling",
    "truth_mj",
    "truth_us",
]
