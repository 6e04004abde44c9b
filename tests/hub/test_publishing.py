"""Publishing through the real client over HTTP: one commit or nothing, hiccups waited out, refusals in one sentence."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from hub_client import ChildError, HubClient
from hub_server import HubServer
from huggingface_hub import ModelCard
from published_runs import write_run

PUBLISH = "hub_client:published"
REHEARSE = "hub_client:rehearsed"
NOTHING = "nothing of it is to be seen there; the same command goes on where this one stopped"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "camvid")


def publish(client: HubClient, run: Path, repo_id: str = "ann/camvid", **options: Any) -> dict[str, Any]:
    return dict(client(PUBLISH, run, repo_id, **{"token": "mine", **options}))


def refused(client: HubClient, message: str, *arguments: Any, **options: Any) -> str:
    """The error is one sentence that holds `message`."""
    with pytest.raises(ChildError, match=re.escape(message)) as caught:
        publish(client, *arguments, **options)
    assert "\n" not in str(caught.value)
    assert "NO InputError" not in str(caught.value)
    return str(caught.value)


def sent(hub: HubServer) -> list[str]:
    return [request for request in hub.requests if request.startswith("PUT")]


@pytest.mark.parametrize("public", [False, True])
def test_one_commit_holds_everything_with_the_card_last(
    hub: HubServer, client: HubClient, run: Path, public: bool
) -> None:
    done = publish(client, run, private=not public)
    assert done["url"] == f"{hub.url}/ann/camvid"
    repository = hub.repositories["model", "ann/camvid"]
    assert repository.private is not public
    assert repository.messages == ["initial commit", "Published with s4mim_hf"]
    assert done["commit"] == repository.commits[-1][0]
    (operations,) = repository.operations
    assert operations[-1] == "+README.md"
    files = hub.files("model", "ann/camvid")
    assert set(files) == {operation[1:] for operation in operations} | {".gitattributes"}
    assert files["model.safetensors"] == (run / "model" / "model.safetensors").read_bytes()
    assert files["panels/step_40.png"] == (run / "panels" / "step_40.png").read_bytes()
    assert ModelCard(files["README.md"].decode()).data.eval_results[0].metric_value == 0.5
    assert f"to the {'public' if public else 'private'} model ann/camvid" in done["said"][-1]


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "whoami", 0, "gives no answer"),
        ("POST", "validate-yaml", 500, "cannot check the card of the model ann/camvid: the Hub failed with status 500"),
        ("POST", "repos/create", 403, "the token has no right to do this (not yours)"),
        ("POST", "/commit/", 401, "does not accept the token"),
        ("POST", "/commit/", 409, "it was changed meanwhile, or exists already"),
        ("POST", "/commit/", 412, "it was changed meanwhile, or exists already"),
        ("POST", "/commit/", 429, "takes no more requests for now (not yours); try again in 7 s"),
        ("POST", "/commit/", 500, "the Hub failed with status 500"),
        ("POST", "/commit/", 0, "gives no answer"),
        ("PUT", "/lfs/", 403, "the token has no right to do this"),
        ("PUT", "/lfs/", 0, "gives no answer"),
    ],
)
def test_an_upload_that_fails_shows_nothing_and_goes_on_when_called_again(
    hub: HubServer, client: HubClient, run: Path, method: str, path: str, status: int, message: str
) -> None:
    hub.fail(method, path, status, times=999, message="not yours", Retry_After="7")
    found = refused(client, message, run)
    made = hub.repositories.get(("model", "ann/camvid"))
    assert made is None or set(hub.files("model", "ann/camvid")) == {".gitattributes"}
    if path not in ("whoami", "validate-yaml"):
        assert NOTHING in found
    arrived = set(hub.blobs)
    hub.faults.clear()
    hub.requests.clear()
    publish(client, run)
    repository = hub.repositories["model", "ann/camvid"]
    assert repository.messages == ["initial commit", "Published with s4mim_hf"]
    # What had arrived is not sent again.
    assert not [request for request in sent(hub) if request.rpartition("/")[2] in arrived]
    assert len(arrived) == (1 if path == "/commit/" else 0)


def test_hiccups_are_waited_out(hub: HubServer, client: HubClient, run: Path) -> None:
    hub.fail("GET", "whoami", 502)
    hub.fail("POST", "validate-yaml", 503)
    hub.fail("POST", "repos/create", 429, Retry_After="5")
    hub.fail("PUT", "/lfs/", 0)
    hub.fail("PUT", "/lfs/", 500)
    hub.fail("POST", "/commit/", 500)
    hub.fail("POST", "/commit/", 429, RateLimit='"api";r=0;t=9')
    hub.fail("POST", "/commit/", 0)
    done = publish(client, run)
    assert not any(fault.left for fault in hub.faults)
    assert hub.repositories["model", "ann/camvid"].messages == ["initial commit", "Published with s4mim_hf"]
    assert len(sent(hub)) == 3
    said = " ".join(done["said"])
    assert "the Hub takes no more requests for now; trying again in 5 s" in said
    assert "the Hub takes no more requests for now; trying again in 9 s" in said
    assert "the Hub failed with status 500; trying again in 1 s" in said
    assert f"the connection to {hub.url} failed; trying again in 4 s" in said


def test_a_commit_whose_answer_was_lost_is_not_made_again(hub: HubServer, client: HubClient, run: Path) -> None:
    hub.fail("POST", "/commit/", 0, done=True)
    done = publish(client, run)
    repository = hub.repositories["model", "ann/camvid"]
    assert repository.messages == ["initial commit", "Published with s4mim_hf"]
    assert done["commit"] == repository.commits[-1][0]


def test_a_hub_that_asks_for_a_long_wait_is_not_waited_for(hub: HubServer, client: HubClient, run: Path) -> None:
    hub.fail("POST", "repos/create", 429, times=9, Retry_After="3600")
    refused(client, "takes no more requests for now; try again in 3600 s", run)
    assert len([request for request in hub.requests if "create" in request]) == 1


def test_a_name_that_is_taken_and_an_update(hub: HubServer, client: HubClient, run: Path, tmp_path: Path) -> None:
    publish(client, run)
    refused(client, "there is a model of that name already, with", run)
    refused(client, "or --update to replace it", run)
    repository = hub.repositories["model", "ann/camvid"]
    files = hub.files("model", "ann/camvid")
    files |= {"handler.py": b"theirs", "examples/a.png": b"theirs", "model-00001-of-00001.safetensors": b"old"}
    changed = Path(shutil.copytree(run, tmp_path / "camvid"))
    (changed / "panels" / "step_20.png").unlink()
    (changed / "metrics.jsonl").write_text("{}\n")
    before = len(sent(hub))
    rehearsed = client(REHEARSE, changed, "ann/camvid", update=True, token="mine")
    assert any("model-00001-of-00001.safetensors, panels/step_20.png deleted" in note for note in rehearsed)
    publish(client, changed, update=True)
    assert repository.messages[1:] == ["Published with s4mim_hf", "Updated with s4mim_hf"]
    assert repository.operations[-1] == ["-model-00001-of-00001.safetensors", "-panels/step_20.png", "+metrics.jsonl"]
    files = hub.files("model", "ann/camvid")
    assert {"handler.py", "examples/a.png", "panels/step_40.png", "README.md"} <= set(files)
    assert len(sent(hub)) == before
    done = publish(client, changed, update=True)
    assert not done["changed"]
    assert len(repository.commits) == 3


def test_repositories_that_are_no_models_or_seen_by_others(hub: HubServer, client: HubClient, run: Path) -> None:
    hub.create("model", "ann/notes", private=True).commits[-1][1]["notes.txt"] = b"mine"
    refused(client, "holds 1 files and no config.json, so it is no model", run, "ann/notes", update=True)
    hub.create("model", "ann/open")
    refused(client, "it exists and is public, but a private one is asked for", run, "ann/open")
    hub.create("model", "lab/closed", private=True)
    done = publish(client, run, "lab/closed", private=False)
    assert "lab/closed is private and stays so; open it in its settings on the Hub" in done["said"]
    assert hub.repositories["model", "lab/closed"].private


def test_refusals_before_anything_is_made(hub: HubServer, client: HubClient, run: Path) -> None:
    refused(client, "there is no token of the Hub on this machine", run, token=None)
    refused(client, "the Hub does not accept the token", run, token="nonsense")
    refused(client, "the token may only read", run, token="reader")
    refused(client, "the token is ann's, who may write to ann, lab, but not to bob", run, "bob/camvid")
    hub.fail("POST", "validate-yaml", 400, message="license is unheard of")
    refused(client, "the Hub does not take the card: ", run)
    assert not hub.repositories
    assert not [request for request in hub.requests if request.startswith(("POST /api/repos", "PUT"))]


def test_a_rehearsal_changes_nothing(hub: HubServer, client: HubClient, run: Path) -> None:
    def rehearse(repo_id: str = "ann/camvid", **options: Any) -> str:
        return " ".join(client(REHEARSE, run, repo_id, **{"token": "mine", **options}))

    assert "ann/camvid does not exist: it would be made, private" in rehearse()
    assert "it would be made, public" in rehearse(private=False)
    hub.create("model", "ann/camvid", private=True)
    assert "exists, is private and empty: it would be filled" in rehearse()
    assert "there is no token of the Hub" in rehearse(token=None)
    hub.fail("GET", "whoami", 0, times=99)
    assert "ann/camvid was not looked for: " in rehearse()
    assert not [request for request in hub.requests if re.match("PUT|DELETE|POST .*(create|commit|preupload)", request)]
    hub.faults.clear()
    hub.put("model", "ann/taken", run / "model")
    with pytest.raises(ChildError, match="there is a model of that name already"):
        rehearse("ann/taken", private=False)
