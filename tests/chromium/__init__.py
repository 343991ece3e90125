"""A headless Chromium over chromedriver, as the W3C's WebDriver protocol has it: JSON over HTTP, and no library."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

BROWSERS = ("chromium", "chromium-browser", "google-chrome")

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
)

ENTER, RIGHT, LEFT, TAB = "\ue007", "\ue014", "\ue012", "\ue004"
"""Keys as the protocol writes them."""


def missing() -> str:
    """Return what this machine lacks to run Chromium; the empty text where it lacks nothing."""
    lacking = [] if any(map(shutil.which, BROWSERS)) else ["chromium"]
    lacking += [] if shutil.which("chromedriver") else ["chromedriver"]
    return f"{' and '.join(lacking)} not installed (Debian: chromium, chromium-driver)" if lacking else ""


class Chromium:
    """One browser window."""

    def __init__(self, address: str, session: str) -> None:
        self._address = f"{address}/session/{session}"

    def open(self, url: str) -> None:
        """Open ``url`` and wait until it has loaded."""
        self._post("url", {"url": url})

    def run(self, script: str, *arguments: str | float) -> Any:  # noqa: ANN401 -- whatever a script returns
        """Return what ``script`` (the body of a function) returns in the page."""
        return self._post("execute/sync", {"script": script, "args": list(arguments)})

    def look(self, width: int, height: int = 900, *, dark: bool = False, phone: bool = False) -> None:
        """Show pages at so many CSS pixels, in the colours and on the kind of screen that are asked for."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        self.devtools("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        self.devtools("Emulation.setEmulatedMedia", media="", features=[scheme, still])

    def click(self, selector: str) -> None:
        """Move the pointer to the middle of the first element of ``selector`` that is shown, and click."""
        x, y = self.run(
            "const shown = [...document.querySelectorAll(arguments[0])].find((e) => e.getClientRects().length);"
            "shown.scrollIntoView({block: 'center', behavior: 'instant'});"
            "const box = shown.getBoundingClientRect();"
            "return [box.x + box.width / 2, box.y + box.height / 2].map(Math.round);",
            selector,
        )
        steps = [
            {"type": "pointerMove", "duration": 0, "x": x, "y": y},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]
        self._post("actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": steps}]})

    def press(self, *keys: str) -> None:
        """Press and release each of ``keys`` where the focus is."""
        steps = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._post("actions", {"actions": [{"type": "key", "id": "keys", "actions": steps}]})

    def errors(self) -> list[str]:
        """Return what the console was told since it was asked before, warnings as well."""
        return [entry["message"] for entry in self._post("se/log", {"type": "browser"})]

    def requests(self) -> list[str]:
        """Return the addresses that were requested since it was asked before."""
        events = [
            json.loads(entry["message"])["message"] for entry in self._post("se/log", {"type": "performance"})
        ]
        return [
            event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"
        ]

    def devtools(self, command: str, **parameters: object) -> Any:  # noqa: ANN401 -- its answer
        """Send a command of the Chrome DevTools protocol and return its answer."""
        return self._post("goog/cdp/execute", {"cmd": command, "params": parameters})

    def picture(self, selector: str = "") -> bytes:
        """Return a PNG of what is to be seen, or of the first element of ``selector``, all of it."""
        if not selector:
            shot = self.devtools("Page.captureScreenshot", format="png")
            return base64.b64decode(shot["data"])
        sides = self.run(
            "const box = document.querySelector(arguments[0]).getBoundingClientRect();"
            "return [box.x + scrollX, box.y + scrollY, box.width, box.height];",
            selector,
        )
        clip = {**dict(zip(("x", "y", "width", "height"), sides, strict=True)), "scale": 1}
        shot = self.devtools("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        return base64.b64decode(shot["data"])

    def close(self) -> None:
        """Close the window and end the browser."""
        _send("DELETE", self._address)

    def _post(self, path: str, body: dict[str, Any]) -> Any:  # noqa: ANN401
        return _send("POST", f"{self._address}/{path}", body)


@contextmanager
def chromium() -> Iterator[Chromium]:
    """Start a browser with a fresh profile and yield its window; in the end nothing of it is left."""
    binary = next(path for path in map(shutil.which, BROWSERS) if path)
    with (
        tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile,
        subprocess.Popen(
            ["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as driver,
    ):
        try:
            address = f"http://127.0.0.1:{_port(driver)}"
            options = {"binary": binary, "args": [*FLAGS, f"--user-data-dir={profile}"]}
            wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
            begun = _send("POST", f"{address}/session", {"capabilities": {"alwaysMatch": wanted}})
            window = Chromium(address, begun["sessionId"])
            try:
                # The browser's own first page is gone before anything is counted.
                window.open("about:blank")
                window.requests()
                window.errors()
                yield window
            finally:
                window.close()
        finally:
            driver.terminate()


def _port(driver: subprocess.Popen[str]) -> int:
    assert driver.stdout is not None
    for line in driver.stdout:
        found = re.search(r"started successfully on port (\d+)", line)
        if found:
            return int(found[1])
    raise OSError("chromedriver ended before it listened")


def _send(method: str, address: str, body: dict[str, Any] | None = None) -> Any:  # noqa: ANN401
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"}, method=method)
    # Whatever proxy the machine has is not for a browser on the machine itself.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=120) as answer:
        return json.load(answer)["value"]
