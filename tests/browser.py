"""A headless Chromium that opens one page, for the tests of what people look at and for the pictures in docs/.

``python -m tests.browser build/report/index.html docs/pictures/report.png`` takes the picture that the README shows.
It speaks the DevTools protocol over two pipes, so it needs no port and no package.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
SECONDS = 60


class Browser:
    """Use it in a with statement; it ends its Chromium and removes the profile."""

    def __enter__(self) -> Browser:
        self._profile = tempfile.mkdtemp(prefix="browser-")
        # Chromium reads descriptor 3 and writes descriptor 4; ours must not lie there while they are put in place.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for pair in (os.pipe(), os.pipe()) for end in pair]
        theirs_in, self._to, self._from, theirs_out = ends

        def hand_over() -> None:
            os.dup2(theirs_in, 3)
            os.dup2(theirs_out, 4)

        self._process = subprocess.Popen(
            [CHROMIUM, *FLAGS, f"--user-data-dir={self._profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "TMPDIR": self._profile},
            pass_fds=(3, 4),
            preexec_fn=hand_over,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._number, self._rest, self._session = 0, b"", None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._to)
        os.close(self._from)
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._profile, ignore_errors=True)

    def ask(self, method: str, **params: object) -> dict:
        """One command of the DevTools protocol; returns its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._to, data) :]
        deadline = time.monotonic() + SECONDS
        while True:
            answer = self._read(deadline)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def _read(self, deadline: float) -> dict:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(self._from, 1 << 20) if ready else b""
            if not data:
                raise RuntimeError("Chromium gave no answer" if ready else f"Chromium was silent for {SECONDS} s")
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def open(self, path: Path, width: int, height: int = 900, dark: bool = False, print_out: bool = False) -> None:
        """Show a file at a width, as a screen in light or dark colours or as a print-out."""
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.ask(
            "Emulation.setEmulatedMedia",
            media="print" if print_out else "",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )
        # The answer to Page.navigate may come while the page before is still there.
        self.value("window.pageBefore = true")
        self.ask("Page.navigate", url=path.resolve().as_uri())
        deadline = time.monotonic() + SECONDS
        while not self.value("document.readyState === 'complete' && !window.pageBefore"):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{path} did not load in {SECONDS} s")
            time.sleep(0.05)

    def value(self, script: str) -> Any:
        """What a script on the page gives."""
        result = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"].get("exception", {}).get("description", script))
        return result["result"].get("value")

    def picture(self, height: int | None = None) -> bytes:
        """A PNG of the page: all of it, or its upper part."""
        size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": height or size["height"], "scale": 1}
        return base64.b64decode(
            self.ask("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)["data"]
        )

    def upper_part(self) -> bytes:
        """A PNG of the page down to the end of its first picture, as docs/pictures/report.png is one."""
        height = self.value("document.querySelector('figure')?.getBoundingClientRect().bottom")
        return self.picture(round(height) + 24 if height else None)


def main() -> None:
    if not CHROMIUM:
        sys.exit("tests.browser: no chromium here; install it (Debian: apt-get install chromium)")
    page, picture, *width = sys.argv[1:]
    with Browser() as browser:
        browser.open(Path(page), int(width[0]) if width else 1280)
        Path(picture).write_bytes(browser.upper_part())


if __name__ == "__main__":
    main()
