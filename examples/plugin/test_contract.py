"""The tests that each part of the package must pass: ``pytest examples/plugin``, with the package installed."""

from cars_hw_example import CONVOLUTIONS, SHORT, Depthwise3x3, InProcess

from cars_hw.testing import CostContract, DataContract, DeviceContract, OperationContract, RecipeContract


class TestInProcess(DeviceContract):
    """Runs them on the device."""

    def device(self) -> InProcess:
        """Return the device that is tested."""
        return InProcess()


class TestConvolutions(CostContract):
    """Runs them on the cost."""

    def cost(self):
        """Return the cost that is tested."""
        return CONVOLUTIONS


class TestStripes(DataContract):
    """Runs them on the data set."""

    def source(self):
        """Return the name of the function that is tested."""
        return "cars_hw_example:stripes"


class TestShort(RecipeContract):
    """Runs them on the recipe."""

    def recipe(self):
        """Return the recipe that is tested."""
        return SHORT


class TestDepthwise3x3(OperationContract):
    """Runs them on the operation."""

    def operation(self):
        """Return the operation that is tested."""
        return Depthwise3x3()
