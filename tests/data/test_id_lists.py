"""Published lists are read from files and addresses and matched with ids, or refused in one sentence."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest

from s4mim_hf.data.splits import downloads, match_ids, read_id_list
from s4mim_hf.errors import InputError

PAIRS = "JPEGImages/2007_000032.jpg SegmentationClass/2007_000032.png\nJPEGImages/2007_000039.jpg x/2007_000039.png"


def test_lists_of_ids_of_paths_and_of_pairs(tmp_path: Path) -> None:
    path = tmp_path / "labeled.txt"
    path.write_text("\ufeff2007_000032\nimages/a.JPG\n\nJPEGImages/b.jpg SegmentationClass/b.png\r\nmy photo.jpg\n")
    assert read_id_list(path) == ["2007_000032", "images/a.JPG", "JPEGImages/b.jpg", "my photo.jpg"]


@pytest.mark.parametrize(
    ("content", "message"), [(b" \n", "is empty"), (b"\xff\xfe\x00", "no UTF-8 text"), (None, "No such file")]
)
def test_bad_lists(content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_id_list(tmp_path / "list.txt")


ANSWERS: dict[str, tuple[int, str, bytes]] = {
    "/labeled.txt": (200, "text/plain; charset=utf-8", PAIRS.encode()),
    "/page": (200, "text/html", b"<!DOCTYPE html><html><body>labeled.txt</body></html>"),
    "/plain_page": (200, "application/octet-stream", b"\n<html></html>"),
    "/binary": (200, "application/octet-stream", b"\xff\xd8\xff\xe0"),
    "/empty": (200, "text/plain", b""),
    "/secret": (403, "text/plain", b"no"),
    "/large": (200, "text/plain", b"a\n" * 2000),
}


class _Site(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/labeled.txt")
            self.end_headers()
            return
        status, kind, body = ANSWERS.get(self.path, (404, "text/plain", b"not here"))
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Site)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    # The tests' environment says offline, which the client keeps to.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


def test_lists_are_fetched_from_an_address(site: str) -> None:
    expected = ["JPEGImages/2007_000032.jpg", "JPEGImages/2007_000039.jpg"]
    assert read_id_list(f"{site}/labeled.txt") == read_id_list(f"{site}/moved") == expected


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/none", "the server answers 404 (Not Found); check the address, or download the file and give its path"),
        ("/secret", "the server answers 403 (Forbidden)"),
        ("/page", "is a web page and no text file; give the address of the raw file"),
        ("/plain_page", "is a web page"),
        ("/binary", "is no UTF-8 text"),
        ("/empty", "is empty; it should name one image a line"),
    ],
)
def test_addresses_that_hold_no_list(path: str, message: str, site: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        read_id_list(site + path)
    assert f"{site}{path}" in str(caught.value)


def test_a_file_that_is_too_large_for_a_list(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "MOST_BYTES", 1 << 10)
    with pytest.raises(InputError, match="so it is none"):
        read_id_list(f"{site}/large")


def test_no_network(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = f"http://127.0.0.1:{_free_port()}/labeled.txt"
    with pytest.raises(InputError, match=r"cannot fetch the id list http.* check the connection, or") as caught:
        read_id_list(nobody)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"cannot fetch the id list .*offline"):
        read_id_list(f"{site}/labeled.txt")


def _free_port() -> int:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Site) as server:
        return server.server_port


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("train/x/0001", "train/x/0001"),
        ("train/x/0001.jpg", "train/x/0001"),
        ("./train\\x\\0001.png", "train/x/0001"),
        ("x/0001.png", "train/x/0001"),
        ("JPEGImages/2007_000032.jpg", "train/2007_000032"),
        ("2007_000032", "train/2007_000032"),
        ("VOC2012/train/2007_000032.jpg", "train/2007_000032"),
        ("v1.5_scene", "train/v1.5_scene"),
        ("7", "train/7"),
    ],
)
def test_entries_are_matched(entry: str, expected: str) -> None:
    ids = ["train/x/0001", "train/y/0001", "train/2007_000032", "train/v1.5_scene", "train/7"]
    assert match_ids([entry], ids, ["val/7", "val/8"], "list") == [expected]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["0001"], "0001 may mean several images (train/x/0001, train/y/0001)"),
        (["z/0001"], "list names 1 images that are not there: z/0001"),
        (["train/0009", "a", "b", "c"], "list names 4 images that are not there: train/0009, a, b and 1 more"),
        (["val/7", "val/8"], "list names 2 validation images: val/7, val/8"),
        (["8"], "list names 1 validation images: 8"),
        (["images/val/7.jpg"], "list names 1 validation images: images/val/7.jpg"),
        (["x/0001", "train/x/0001"], "list names 1 images more than once: train/x/0001"),
        (["train/7", "train/7"], "list names 1 images more than once: train/7"),
        (["lonly"], "did you mean 'train/lonely'?"),
    ],
)
def test_entries_are_refused(entries: list[str], message: str) -> None:
    ids = ["train/x/0001", "train/y/0001", "train/7", "train/lonely"]
    with pytest.raises(InputError, match=re.escape(message)):
        match_ids(entries, ids, ["val/7", "val/8"], "list")


def test_sources_say_what_an_entry_means() -> None:
    entry = "leftImg8bit/train/ulm/ulm_0_19_leftImg8bit.png"

    def id_of_entry(text: str) -> str:
        return text.removeprefix("leftImg8bit/train/").removesuffix("_leftImg8bit.png")

    assert match_ids([entry], ["ulm/ulm_0_19", "bonn/bonn_0_19"], [], "list", id_of_entry) == ["ulm/ulm_0_19"]


def test_many_images_and_a_short_list() -> None:
    ids = [f"train/{index:06d}" for index in range(100_000)]
    assert match_ids(["x/000007.jpg", "train/099999", "000001"], ids, [], "list") == [ids[7], ids[99_999], ids[1]]
    with pytest.raises(InputError, match="1 images that are not there: 1000000"):
        match_ids(["1000000"], ids, [], "list")


@pytest.mark.real
@pytest.mark.parametrize("name", ["92", "1464", "1_8", "u2pl_1_16"])
def test_published_lists_match(name: str, shared_dir: Path) -> None:
    lists = shared_dir / "splits" / "pascal"
    everything = [Path(entry).stem for entry in read_id_list(lists / "train_aug.txt")]
    aside = [Path(entry).stem for entry in read_id_list(lists / "val.txt")]
    assert (len(everything), len(aside)) == (10582, 1449)
    parts = [read_id_list(lists / name / f"{part}.txt") for part in ("labeled", "unlabeled")]
    for entries in parts:
        assert match_ids(entries, everything, aside, "list") == [Path(entry).stem for entry in entries]
    assert name != "92" or len(parts[0]) == 92
