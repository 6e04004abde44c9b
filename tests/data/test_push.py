"""Prepared folders go to the Hub and come back, by the real client over HTTP; what goes wrong is one sentence."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hub_client import ChildError, HubClient
from hub_server import HubServer
from prepared_folders import write_folder

PUSH = "s4mim_hf.data.push:push_prepared"
CHECK = "s4mim_hf.data.push:check_push"
LOAD = "hub_client:summary_of"
PROBLEMS = "hub_client:problems_of"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("prepared") / "scenes", shard_bytes=6000)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(client: HubClient, message: str, *arguments: Any, **options: Any) -> str:
    """The error is one sentence that holds `message`."""
    with pytest.raises(ChildError, match=re.escape(message)) as caught:
        client(*arguments, **options)
    assert "\n" not in str(caught.value)
    assert "NO InputError" not in str(caught.value)
    return str(caught.value)


def push(client: HubClient, folder: Path, repo_id: str, token: str | None = "mine", **options: Any) -> str:
    return str(client(PUSH, folder, repo_id, say="print", token=token, **options))


@pytest.mark.parametrize(("repo_id", "whole", "private"), [("scenes", "ann/scenes", True), ("lab/x", "lab/x", False)])
def test_one_commit_holds_the_folder(
    hub: HubServer, client: HubClient, folder: Path, repo_id: str, whole: str, private: bool
) -> None:
    before = contents(folder)
    url = push(client, folder, repo_id, private=private)
    assert url == f"{hub.url}/datasets/{whole}"
    repository = hub.repositories["dataset", whole]
    assert repository.private is private
    assert repository.messages == ["initial commit", "Prepared with s4mim_hf"]
    uploaded = hub.files("dataset", whole)
    assert {path: uploaded[path] for path in before} == before == contents(folder)
    assert set(uploaded) - set(before) == {".gitattributes"}
    assert {path for path in before if path.endswith(".parquet")} == repository.large


def test_what_is_pushed_is_loaded_again(hub: HubServer, client: HubClient, folder: Path) -> None:
    push(client, folder, "scenes")
    record = json.loads((folder / "splits.json").read_text())
    head = hub.repositories["dataset", "ann/scenes"].commits[-1][0]
    for location in ("hf://datasets/ann/scenes", f"hf://datasets/ann/scenes@{head}"):
        found = client(LOAD, location, token="mine")
        assert (found["path"], found["hash"], found["counts"]) == (location, record["hash"], record["counts"])
        stored = [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in found["shards"]["unlabeled"]]
        assert stored == [shard["sha256"] for shard in record["shards"]["unlabeled"]]
    # The second time, everything is in the cache.
    downloads = [request for request in hub.requests if request.startswith("GET /datasets/")]
    assert len(downloads) == len(contents(folder))


def test_unlabelled_images_that_are_not_asked_for_stay_on_the_hub(
    hub: HubServer, client: HubClient, tmp_path: Path
) -> None:
    hub.put("dataset", "ann/few", write_folder(tmp_path / "few", seed=1))
    found = client(LOAD, "hf://datasets/ann/few", unlabeled=False, token="mine")
    assert found["counts"]["unlabeled"] is None
    assert "unlabeled" not in found["shards"]
    assert not any("/resolve/" in request and "unlabeled" in request for request in hub.requests)


def test_data_sets_that_cannot_be_loaded(hub: HubServer, client: HubClient, folder: Path, tmp_path: Path) -> None:
    hub.put("dataset", "ann/secret", folder, private=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "README.md").write_text("---\n---\n")
    hub.put("dataset", "ann/other", tmp_path / "other")
    refused(client, "no data set of the Hub; write hf://datasets/USER/NAME", LOAD, "hf://ann/scenes")
    refused(client, "there is none of that name, or it is private; check the name", LOAD, "hf://datasets/ann/secret")
    refused(client, "that your token may see", LOAD, "hf://datasets/ann/secret", token="theirs")
    refused(client, "that your token may see", LOAD, "hf://datasets/ann/nothing", token="mine")
    refused(client, "has no such revision; give a branch", LOAD, "hf://datasets/ann/secret@v2", token="mine")
    refused(client, "has no splits.json: it is none that", LOAD, "hf://datasets/ann/other", token="mine")
    assert not any("labeled-" in request for request in hub.requests)
    hub.fail("GET", r"/api/datasets/ann/other", 0, times=9)
    refused(client, f"{hub.url} gives no answer", LOAD, "hf://datasets/ann/other@main2", token="mine")
    hub.fail("GET", r"/api/datasets/ann/secret", 500, times=9)
    refused(client, "the Hub failed with status 500", LOAD, "hf://datasets/ann/secret@main2", token="mine")


def test_a_shard_that_the_hub_has_cut_short(hub: HubServer, client: HubClient, folder: Path, tmp_path: Path) -> None:
    hub.put("dataset", "ann/broken", folder)
    files = hub.files("dataset", "ann/broken")
    name = sorted(path for path in files if "unlabeled" in path)[0]
    files[name] = files[name][:-100]
    refused(client, f"{name} has {len(files[name])} bytes where splits.json", LOAD, "hf://datasets/ann/broken")
    found = client(PROBLEMS, "hf://datasets/ann/broken")
    assert f"{name} has {len(files[name])} bytes where splits.json" in found[0]


def test_what_is_pushed_can_be_checked(hub: HubServer, client: HubClient, folder: Path) -> None:
    hub.put("dataset", "ann/sound", folder)
    assert client(PROBLEMS, "hf://datasets/ann/sound") == client(PROBLEMS, str(folder)) == []


def test_pushes_that_are_refused_before_anything_is_made(hub: HubServer, client: HubClient, folder: Path) -> None:
    refused(client, "there is no token of the Hub on this machine", CHECK, "ann/scenes")
    refused(client, "the Hub does not accept the token", CHECK, "ann/scenes", token="nonsense")
    refused(client, "the token may only read", CHECK, "ann/scenes", token="reader")
    refused(client, "the token is ann's, who may write to ann, lab, but not to bob", CHECK, "bob/x", token="mine")
    hub.put("dataset", "ann/taken", folder)
    message = refused(
        client, "there is a data set of that name already", PUSH, folder, "ann/taken", say="print", token="mine"
    )
    assert f"`hf upload ann/taken {folder} . --repo-type dataset --private`" in message
    hub.create("dataset", "ann/empty", private=False)
    refused(client, "it exists and is public, but a private one", CHECK, "ann/empty", token="mine")
    assert client(CHECK, "ann/empty", private=False, token="mine") == "ann/empty"
    refused(client, "cannot push to the data set ann/a b: Repo id must use", CHECK, "ann/a b", token="mine")
    assert not any(request.startswith(("POST", "PUT")) for request in hub.requests)


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "whoami", 429, "takes no more requests for now"),
        ("POST", "repos/create", 403, "the token has no right to do this (not yours)"),
        ("POST", "repos/create", 429, "takes no more requests for now (not yours); try again in 7 s"),
        ("POST", "/commit/", 401, "does not accept the token"),
        ("POST", "/commit/", 409, "it was changed meanwhile, or exists already"),
        ("POST", "/commit/", 412, "it was changed meanwhile, or exists already"),
        ("PUT", "/lfs/", 403, "the token has no right to do this"),
    ],
)
def test_uploads_that_fail_keep_the_folder_and_can_be_repeated(
    hub: HubServer, client: HubClient, folder: Path, method: str, path: str, status: int, message: str
) -> None:
    before = contents(folder)
    hub.fail(method, path, status, times=99, message="not yours", Retry_After="7")
    found = refused(client, message, PUSH, folder, "ann/scenes", say="print", token="mine")
    assert f"{folder} is whole, and can be uploaded later with `hf upload ann/scenes" in found
    assert contents(folder) == before
    made = hub.repositories.get(("dataset", "ann/scenes"))
    assert made is None or len(made.commits) == 1
    hub.faults.clear()
    push(client, folder, "ann/scenes")
    assert len(hub.repositories["dataset", "ann/scenes"].commits) == 2


def test_a_hiccup_is_no_failure_and_nothing_is_sent_twice(hub: HubServer, client: HubClient, folder: Path) -> None:
    hub.fail("GET", "whoami", 503)
    hub.fail("POST", "/repos/create", 429, Retry_After="3")
    hub.fail("PUT", "/lfs/", 0)
    hub.fail("POST", "/commit/", 500)
    hub.fail("POST", "/commit/", 401)
    refused(client, "does not accept the token", PUSH, folder, "ann/scenes", say="print", token="mine")
    sent = [request for request in hub.requests if request.startswith("PUT")]
    hub.fail("POST", "/commit/", 0)
    # The commit is made, and its answer is lost: it is not made again.
    hub.fail("POST", "/commit/", 0, done=True)
    push(client, folder, "ann/scenes")
    assert [request for request in hub.requests if request.startswith("PUT")] == sent
    assert hub.repositories["dataset", "ann/scenes"].messages == ["initial commit", "Prepared with s4mim_hf"]
    assert not any(fault.left for fault in hub.faults)
