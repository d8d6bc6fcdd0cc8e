"""Chromium without a window, driven over its own debugging protocol. A tool that a person uses, in the hands of a test.

Skips where there is no Chromium. It reaches loopback alone: whatever else it asks for leads nowhere.
"""

import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.support.daemon import plain_environment

WAIT_SECONDS = 30.0

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost",
    "--remote-debugging-port=0",
    "--hide-scrollbars",
)

# Keys that a test presses; a letter is its own.
_KEYS = {"Tab": 9, "Enter": 13}


def chromium() -> str | None:
    """Return the path of Chromium, or None."""
    return next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)


class Browser:
    """One window."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)
        self.complaints: list[str] = []
        """What the page said on its console, what was thrown in it, and what its policy forbade."""
        self.requests: list[str] = []
        """Every address that was asked for."""
        self.dialogs: list[str] = []
        """Questions that were asked and answered with yes."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        number = next(self._numbers)
        self._connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._connection.recv(timeout=WAIT_SECONDS))
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                result: dict[str, Any] = message["result"]
                return result
            self._notice(message)

    def _notice(self, message: dict[str, Any]) -> None:
        facts = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.complaints.append(str(facts["exceptionDetails"].get("exception", facts["exceptionDetails"])))
            case "Runtime.consoleAPICalled":
                self.complaints.append(str(facts["args"]))
            case "Log.entryAdded":
                # An answer that is no success is what some tests ask for.
                if facts["entry"]["source"] != "network":
                    self.complaints.append(facts["entry"]["text"])
            case "Network.requestWillBeSent":
                self.requests.append(facts["request"]["url"])
            case "Page.javascriptDialogOpening":
                self.dialogs.append(facts["message"])
                number = next(self._numbers)
                parameters = {"accept": True}
                self._connection.send(json.dumps({"id": number, "method": "Page.handleJavaScriptDialog", "params": parameters}))

    def run(self, script: str) -> Any:
        """Return what an expression in the page is."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True, userGesture=True)
        if "exceptionDetails" in result:
            raise RuntimeError(str(result["exceptionDetails"]))
        return result["result"].get("value")

    def open(self, url: str) -> None:
        """Go to an address and return when the page stands."""
        self.call("Page.navigate", url=url)
        self.until(lambda: self.run("document.readyState") == "complete" and self.run("location.href") != "about:blank", url)

    def act(self, script: str) -> None:
        """Do what leads to another page, and return when that stands."""
        self.run("window.stale = true")
        self.run(script)
        self.until(lambda: self._settled("typeof window.stale === 'undefined' && document.readyState === 'complete'"), script)

    def _settled(self, condition: str) -> bool:
        # Between two pages there is no place to evaluate anything.
        with contextlib.suppress(RuntimeError):
            return bool(self.run(condition))
        return False

    def until(self, predicate: Callable[[], Any], what: str) -> Any:
        """Return the first true value of `predicate`.

        Raises:
            TimeoutError: There was none in time.
        """
        deadline = time.monotonic() + WAIT_SECONDS
        while not (value := predicate()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {WAIT_SECONDS} s for {what}; the page says: {self.text()[:2000]}")
            time.sleep(0.05)
        return value

    def text(self, selector: str = "body") -> str:
        """Return what can be read."""
        return str(self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def texts(self, selector: str) -> list[str]:
        """Return what can be read in every element that can be seen."""
        script = (
            f"[...document.querySelectorAll({json.dumps(selector)})].filter(e => e.checkVisibility()).map(e => e.innerText)"
        )
        found: list[str] = self.run(script)
        return found

    def fill(self, selector: str, value: str) -> None:
        """Write into a field as a person does."""
        self.run(f"document.querySelector({json.dumps(selector)}).select()")
        self.call("Input.insertText", text=value)

    def press(self, key: str) -> None:
        """Press a key."""
        facts = {"key": key, "code": key, "windowsVirtualKeyCode": _KEYS[key]}
        self.call("Input.dispatchKeyEvent", type="keyDown", **facts, **({"text": "\r"} if key == "Enter" else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **facts)

    def look(self, *, width: int = 1360, height: int = 900, dark: bool = False) -> None:
        """Change the window's size and the person's taste."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def screenshot(self, path: Path) -> None:
        """Save what can be seen."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


@contextlib.contextmanager
def running_browser() -> Iterator[Browser]:
    """Start Chromium with a profile of its own and yield its window."""
    program = chromium()
    assert program is not None
    with tempfile.TemporaryDirectory(prefix="aiproxyd-browser-", ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [program, *_FLAGS, f"--user-data-dir={folder}", "about:blank"],
            env=plain_environment(HOME=folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            port = _debugging_port(Path(folder), process)
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(f"http://127.0.0.1:{port}/json/list", timeout=WAIT_SECONDS) as answer:
                pages = [target for target in json.load(answer) if target["type"] == "page"]
            with connect(pages[0]["webSocketDebuggerUrl"], max_size=None, proxy=None, compression=None) as connection:
                yield Browser(connection)
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            if process.poll() is None:
                process.kill()
            process.wait()


def _debugging_port(folder: Path, process: subprocess.Popen[bytes]) -> int:
    file = folder / "DevToolsActivePort"
    deadline = time.monotonic() + WAIT_SECONDS
    while not file.exists() or not file.read_text().strip():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"Chromium did not start (status {process.poll()})")
        time.sleep(0.05)
    return int(file.read_text().split()[0])
