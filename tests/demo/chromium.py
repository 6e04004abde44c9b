"""Chromium, driven by selenium: started anew, with nothing of a person's, and asked what it loaded."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--disable-quic", "--disable-dev-shm-usage",
)  # fmt: skip
PATIENCE = 60


class Browser:
    """One window.

    Args:
        profile: an empty folder.
        downloads: where what is downloaded goes.
    """

    def __init__(self, profile: Path, downloads: Path) -> None:
        options = ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for flag in (*FLAGS, f"--user-data-dir={profile}", "--window-size=1280,900"):
            options.add_argument(flag)
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        self.driver = Chrome(options=options, service=Service(str(DRIVER)))

    def resize(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def open(self, url: str) -> None:
        self.driver.get(url)
        self.find("#photo input[type=file]")

    def find(self, selector: str) -> WebElement:
        """Return the one element, once it is there."""
        return self.until(lambda: self.driver.find_element(By.CSS_SELECTOR, selector), selector)

    def until(self, found: Callable[[], Any], what: str) -> Any:
        """Return what `found` returns once that is true; elements may come, go and be replaced meanwhile."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                if result := found():
                    return result
            except (StaleElementReferenceException, WebDriverException):
                pass
            time.sleep(0.05)
        raise AssertionError(f"waited {PATIENCE} s for {what}; the page shows: {self.find('body').text[:2000]}")

    def click(self, selector: str) -> None:
        self.driver.execute_script("arguments[0].click()", self.find(selector))

    def tab(self, name: str) -> None:
        xpath = f"//button[@role='tab' and normalize-space()='{name}']"
        tab = self.until(lambda: self.driver.find_element(By.XPATH, xpath), f"the tab {name}")
        self.driver.execute_script("arguments[0].click()", tab)

    def tabs(self) -> list[str]:
        return [tab.text for tab in self.driver.find_elements(By.CSS_SELECTOR, "button[role=tab]") if tab.text]

    def text(self, selector: str) -> str:
        return str(self.find(selector).text).replace("\u00a0", " ")

    def upload(self, path: Path) -> None:
        self.find("#photo input[type=file]").send_keys(str(path))

    def set_number(self, selector: str, value: int) -> None:
        """Type a slider's number."""
        script = """
            const input = arguments[0];
            input.value = arguments[1];
            for (const kind of ["input", "change", "blur"]) input.dispatchEvent(new Event(kind, {bubbles: true}));
        """
        self.driver.execute_script(script, self.find(f"{selector} input[type=number]"), value)

    def has_picture(self, selector: str) -> bool:
        return bool(self.driver.find_elements(By.CSS_SELECTOR, f"{selector} img"))

    def picture(self, selector: str, other_than: np.ndarray | None = None) -> np.ndarray:
        """Return the pixels of a picture of the page, uint8 (H, W, 3), once they are there and not what they were."""

        def changed() -> np.ndarray | None:
            try:
                pixels = self._pixels(f"{selector} img")
            except OSError:
                # Gradio writes a picture that it has shown before into its file once more: this was read meanwhile.
                return None
            if other_than is not None and pixels.shape == other_than.shape and (pixels == other_than).all():
                return None
            return pixels

        # An array has no truth value.
        return self.until(lambda: None if (found := changed()) is None else [found], f"a new {selector}")[0]

    def _pixels(self, selector: str) -> np.ndarray:
        source = self.find(selector).get_attribute("src")
        return np.asarray(Image.open(io.BytesIO(self.fetch(source))).convert("RGB"))

    def fetch(self, url: str) -> bytes:
        """Fetch by the page's own session."""
        script = """
            const [url, done] = arguments;
            fetch(url).then(r => r.arrayBuffer()).then(b => done(Array.from(new Uint8Array(b))));
        """
        return bytes(self.driver.execute_async_script(script, url))

    def requested(self) -> list[str]:
        """Return every address that pages asked for since the last call; the browser's own pages aside."""
        messages = (json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance"))
        sent = (m["params"] for m in messages if m["method"] == "Network.requestWillBeSent")
        return [one["request"]["url"] for one in sent if not one["documentURL"].startswith("chrome")]
