from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from simulated_phone import Adbd, Phone
from throttling_stand import Stand, throttling_phone

from cars_hw.devices.android.adb import AdbShell, Address
from cars_hw.devices.android.device import AndroidDevice
from cars_hw.devices.remote_machine import Waits


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Phone:
    """A phone with the real runner where people put it; nothing is stored on this side."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = Phone(tmp_path / "phone")
    made.install()
    return made


@pytest.fixture
def adbd(phone: Phone) -> Iterator[Adbd]:
    """The phone's side of the connection; lets everybody in."""
    with Adbd(phone) as serving:
        yield serving


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with this computer's key: making one takes a tenth of a second."""
    from cars_hw.devices.android.adb import make_key

    folder = tmp_path_factory.mktemp("keys")
    make_key(folder / "adbkey")
    return folder


@pytest.fixture
def shell(adbd: Adbd, keys: Path) -> Iterator[AdbShell]:
    made = AdbShell(Address("127.0.0.1", adbd.port), keys=keys, connect_s=5.0, authorise_s=1.0)
    yield made
    made.close()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def device(shell: AdbShell, said: list[str]) -> AndroidDevice:
    return AndroidDevice(
        shell, "android:sim", log=said.append, waits=Waits(cool_down=1.0, reconnect=5.0, session=20.0, pause=0.05)
    )


@pytest.fixture
def model_count() -> int:
    return 3


@pytest.fixture
def models(tmp_path: Path, model_count: int) -> list[Path]:
    """Files of 1000, 1100, ... bytes; the canned runner takes them for models of so many microseconds."""
    made = []
    for number in range(model_count):
        path = tmp_path / f"{number}.tflite"
        path.write_bytes(bytes(1000 + 100 * number))
        made.append(path)
    return made


@pytest.fixture
def stand(tmp_path: Path, keys: Path, request: pytest.FixtureRequest) -> Iterator[Stand]:
    """A phone with a clock of its own; a parameter is how long the clock of its cores rises, in seconds."""
    with throttling_phone(tmp_path, keys, getattr(request, "param", 0.0)) as made:
        yield made
