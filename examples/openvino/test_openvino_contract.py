"""The tests of devices and formats: ``pytest examples/openvino``, with the package installed."""

from cars_hw_openvino import FORMAT, OpenVinoDevice

from cars_hw.testing import DeviceContract, FormatContract


class TestDevice(DeviceContract):
    """Runs them on the device."""

    def device(self) -> OpenVinoDevice:
        """Return the device that is tested."""
        return OpenVinoDevice()


class TestFormat(FormatContract):
    """Runs them on the format."""

    def export_format(self):
        """Return the format that is tested."""
        return FORMAT
