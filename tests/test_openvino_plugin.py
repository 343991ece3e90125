"""The example of a format and a device, installed from its wheel; it needs the package openvino."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from cars_hw.cli.main import main
from cars_hw.devices import Device, format_of, open_device
from cars_hw.errors import DeviceError, InputError
from cars_hw.export.export import export_genotype
from cars_hw.export.format import ExportFormat
from cars_hw.export.formats import export_format, format_of_file
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.zoo import resolve_genotype
from cars_hw.testing import DeviceContract, FormatContract

pytest.importorskip("openvino", reason="the package openvino is not installed")

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "openvino"
BUILD = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel of the example was unpacked to, as pip does."""
    folder = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [sys.executable, "-c", BUILD, folder], cwd=EXAMPLE, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    with zipfile.ZipFile(folder / built.stdout.split()[-1]) as content:
        content.extractall(folder / "site")
    return folder / "site"


@pytest.fixture(autouse=True)
def installed(unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(unpacked)
    yield
    sys.modules.pop("cars_hw_openvino", None)


class TestDevice(DeviceContract):
    def device(self) -> Device:
        return open_device("openvino")


class TestFormat(FormatContract):
    def export_format(self) -> ExportFormat:
        return export_format("openvino")


def test_a_genotype_is_exported_and_measured_by_name(tmp_path: Path) -> None:
    assert format_of("openvino") == "openvino"
    (exported,) = export_genotype(
        resolve_genotype("CARS_D"), NetworkSpec(4, 3, (8, 8), 1), tmp_path, name="net", formats=["openvino"]
    )
    assert exported.path == tmp_path / "net.openvino"
    assert exported.card.parity < 1e-5
    assert "openvino" in exported.card.versions
    assert format_of_file(exported.path).name == "openvino"
    with zipfile.ZipFile(exported.path) as archive:
        assert archive.namelist() == ["model.xml", "model.bin"]
        assert b"class_names" in archive.read("model.xml")
    with pytest.raises(InputError, match="openvino models have no precision 'int8'; known: fp32"):
        export_format("openvino").require_precision("int8")
    with pytest.raises(DeviceError, match=r"OpenVINO has no ABACUS here; it has: .*CPU"):
        open_device("openvino:ABACUS")
    listed = CliRunner().invoke(main, ["plugins"])
    assert listed.exit_code == 0, listed.output
    assert listed.output.count("cars-hw-openvino 0.1.0") == 2
