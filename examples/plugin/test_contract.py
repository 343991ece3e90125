"""The tests that every device must pass: ``pytest examples/plugin``, with the package installed."""

from cars_hw_example import InProcess

from cars_hw.testing import DeviceContract


class TestInProcess(DeviceContract):
    """Runs them on this device."""

    def device(self) -> InProcess:
        """Return the device that is tested."""
        return InProcess()
