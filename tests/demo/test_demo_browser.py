"""The page as a person sees it: a Space's folder, started as it stands, in a browser.

The Space is written by the README's own command, from a run with a reconstruction head and a model without one; its
app.py is scripts/app.py, to the byte.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import numpy as np
import pytest
from PIL import Image

MISSING = [name for name in ("gradio", "selenium") if find_spec(name) is None]
if MISSING:
    pytest.skip(f"{' and '.join(MISSING)} not installed", allow_module_level=True)

from chromium import CHROMIUM, DRIVER, Browser  # noqa: E402

if not (CHROMIUM.exists() and DRIVER.exists()):
    pytest.skip(f"no browser: {CHROMIUM} or {DRIVER} is absent", allow_module_level=True)


@pytest.fixture(scope="module")
def space(repository: Path, run_folder: Path, plain_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a Space's folder as the README's command writes it; its page has a title of its own."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(run_folder, folder / "runs" / "mine")
    shutil.copytree(plain_model, folder / "runs" / "again" / "model")
    text = (repository / "README.md").read_text(encoding="utf-8")
    serving, writing = re.findall(r"^python scripts/app\.py (.*)$", text, flags=re.M)
    # What the one writes, the tests below serve, so the other is run as well.
    assert writing == f"{serving} --write-space space"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["scripts/app.py", *writing.split()])
        with pytest.raises(SystemExit, match=r"^0$"):
            runpy.run_path(str(repository / "scripts" / "app.py"), run_name="__main__")
    markup = folder / "space" / "s4mim_hf" / "demo" / "markup.py"
    markup.write_text(markup.read_text().replace("<h1>Segment a photo</h1>", "<h1>From the folder</h1>"))
    return folder / "space"


@pytest.fixture(scope="module")
def proxy() -> Iterator[tuple[str, list[bytes]]]:
    """Return the address of a proxy that lets nothing through, and what it was asked for."""
    asked: list[bytes] = []
    server = socket.create_server(("127.0.0.1", 0))

    def listen() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                asked.append(connection.recv(2000))

    threading.Thread(target=listen, daemon=True).start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}", asked
    server.close()


@pytest.fixture(scope="module")
def url(space: Path, proxy: tuple[str, list[bytes]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start app.py from the Space's folder, as the Hub does, and return its page's address."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "HF_HUB_OFFLINE")}
    environment |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), proxy[0])
    environment |= {"NO_PROXY": "127.0.0.1,localhost", "GRADIO_TEMP_DIR": str(tmp_path_factory.mktemp("gradio"))}
    environment |= {"GRADIO_SERVER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen([sys.executable, "app.py"], cwd=space, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        said = child.stdout.readline()
        found = re.match(r"open (http://127\.0\.0\.1:\d+/) ", said)
        assert found is not None, said
        yield found[1]
    finally:
        child.terminate()
        child.wait(timeout=30)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(downloads: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = Browser(tmp_path_factory.mktemp("profile"), downloads)
    yield found
    found.driver.quit()


def test_a_photo_is_segmented_and_drawn_as_chosen(url: str, browser: Browser, photo: Path, downloads: Path) -> None:
    browser.open(url)
    assert browser.text("#title h1") == "From the folder", "the package that runs is the folder's"
    assert browser.tabs() == ["Overlay", "Confidence", "Reconstruction", "Compare"]
    browser.upload(photo)
    first = browser.picture("#overlay")
    assert first.shape == (72, 96, 3)
    assert browser.text("#status") == "scene.jpg: 96 x 72 pixels"
    labels = "#classes-0 [data-testid=checkbox-group] label"
    legend = browser.until(lambda: browser.driver.find_elements("css selector", labels), "a legend")
    shares = [float(re.search(r"([\d.]+) % /", label.text.replace("\u00a0", " "))[1]) for label in legend]
    assert sum(shares) == pytest.approx(100, abs=0.1 * len(shares))
    swatches = "return arguments[0].map(e => getComputedStyle(e, '::before').backgroundColor)"
    assert len(set(browser.driver.execute_script(swatches, legend))) == len(legend)
    browser.click(f"{labels}:nth-of-type(1) input")
    without = browser.picture("#overlay", other_than=first)
    browser.click(f"{labels}:nth-of-type(1) input")
    browser.picture("#overlay", other_than=without)
    browser.set_number("#opacity", 0)
    bare = browser.until(
        lambda: (
            (pixels := browser.picture("#overlay"), abs(pixels.astype(int) - upright(photo)).mean())[1] < 6 and [pixels]
        ),
        "the photo alone",
    )[0]
    assert abs(bare.astype(int) - first).mean() > 6
    # The class map itself, at the photo's size.
    browser.click("#download-0")
    file = downloads / "scene_classes_1.png"
    browser.until(file.is_file, "the download")
    with Image.open(file) as mask:
        assert (mask.mode, mask.size) == ("P", (96, 72))


def upright(photo: Path) -> np.ndarray:
    with Image.open(photo) as stored:
        return np.rot90(np.asarray(stored), k=-1).astype(int)


def test_confidence_reconstruction_and_a_second_model(url: str, browser: Browser, photo: Path) -> None:
    browser.open(url)
    browser.upload(photo)
    browser.picture("#overlay")
    browser.tab("Confidence")
    assert browser.picture("#confidence-0").shape == (72, 96, 3)
    assert re.fullmatch(r"On average [\d.]+ %; below 50 % on .* of the pixels\.", browser.text("#confidence-words-1"))
    browser.tab("Reconstruction")
    assert "1-mine has the decoder that fills in masked images. 2-again has none." in browser.text("#views")
    masked, filled = browser.picture("#masked"), browser.picture("#filled")
    assert browser.find("#ratio input[type=number]").get_attribute("value") == "50", "as the run masked"
    browser.set_number("#ratio", 90)
    more = browser.picture("#masked", other_than=masked)
    assert (abs(more.astype(int) - upright(photo)) > 12).mean() > (abs(masked.astype(int) - upright(photo)) > 12).mean()
    browser.picture("#filled", other_than=filled)
    browser.set_number("#seed", 7)
    browser.picture("#masked", other_than=more)
    browser.tab("Compare")
    pair = [browser.picture(f"#pair-{number}") for number in range(2)]
    assert (pair[0] != pair[1]).any()
    share = re.fullmatch(r"1-mine and 2-again differ on ([\d.]+) % of the pixels\.", browser.text("#verdict"))
    painted = (abs(browser.picture("#disagreement").astype(int) - (255, 0, 144)) < 60).all(axis=2).mean()
    assert painted == pytest.approx(float(share[1]) / 100, abs=0.08)


def test_a_broken_photo_is_one_sentence_and_the_next_one_works(
    url: str, browser: Browser, photo: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture at all")
    browser.open(url)
    browser.upload(photo)
    browser.picture("#overlay")
    browser.click("#photo button[aria-label=Clear], #photo button[aria-label='Remove Image']")
    browser.until(lambda: not browser.has_picture("#overlay"), "an empty page")
    browser.upload(tmp_path / "broken.jpg")
    said = browser.find("#status .problem").text
    assert said == "broken.jpg is no image that can be read; upload a photo as JPEG, PNG, WebP or TIFF."
    assert not browser.has_picture("#overlay")
    browser.upload(photo)
    browser.picture("#overlay")
    assert not browser.driver.find_elements("css selector", "#status .problem")


def test_no_file_of_the_server_passes_for_an_upload(url: str, photo: Path) -> None:
    config = json.loads(urlopen(f"{url}config").read())
    kinds = {one["id"]: one["type"] for one in config["components"]}
    taking = next(one for one in config["dependencies"] if "image" in map(kinds.get, one["inputs"]))
    named = {"path": str(photo), "meta": {"_type": "gradio.FileData"}}
    data = [{"image": named, "slider": 50}.get(kinds[part]) for part in taking["inputs"]]
    body = json.dumps({"data": data, "fn_index": taking["id"], "session_hash": "visitor"}).encode()
    urlopen(Request(f"{url}gradio_api/queue/join", body, {"Content-Type": "application/json"})).read()
    answer = urlopen(f"{url}gradio_api/queue/data?session_hash=visitor").read().decode()
    assert '"success":false' in answer
    assert "pixels" not in answer


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_its_window(url: str, browser: Browser, width: int) -> None:
    browser.resize(width, 800)
    browser.open(url)
    inside = browser.driver.execute_script("return document.documentElement.scrollWidth")
    assert inside <= width
    photo, views, classes = (browser.find(f"#{name}").rect for name in ("upload-side", "views", "classes-side"))
    if width == 390:
        assert photo["y"] < views["y"] < classes["y"]
    else:
        assert photo["x"] == classes["x"] < views["x"]
        assert photo["y"] == views["y"] < classes["y"]


def test_nothing_was_loaded_from_anywhere_else(url: str, browser: Browser, proxy: tuple[str, list[bytes]]) -> None:
    browser.open(url)
    asked = browser.requested()
    assert len(asked) > 20
    hosts = {urlsplit(one).hostname for one in asked if not one.startswith(("data:", "blob:"))}
    assert hosts == {"127.0.0.1"}
    assert proxy[1] == [], "the server asked for nothing either"
    config = json.loads(browser.fetch(f"{url}config"))
    assert config["analytics_enabled"] is False
