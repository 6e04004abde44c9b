"""A child process whose Hub is a test's: it calls functions by name and says what came of it, one JSON line each.

`huggingface_hub` reads its address when it is imported, so that this must be another process than pytest's.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import runpy
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any


class HubClient:
    """Speaks to the child."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, function: str, *arguments: Any, token: str | None = None, **options: Any) -> Any:
        """Call "module:function" in the child, and return its result as JSON can say it.

        A keyword `say` of the function is filled by the child. Raises `ChildError` with the message of an InputError.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"function": function, "arguments": arguments, "options": options, "token": token}
        self._process.stdin.write(json.dumps(request, default=lambda path: {"path": str(path)}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise ChildError(answer["error"])
        return answer["result"]


class ChildError(Exception):
    """What the child raised."""


@contextmanager
def hub_client(environment: dict[str, str]) -> Iterator[HubClient]:
    """Run a child in an environment such as `HubServer.environment` gives it."""
    command = [sys.executable, __file__]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=Path(__file__).parent
    ) as process:
        try:
            yield HubClient(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.kill()


def summary_of(path: str, **options: Any) -> dict[str, Any]:
    """Load prepared data, and return what a test compares."""
    from s4mim_hf.data.prepared import load_prepared

    data = load_prepared(path, **options)
    splits = {"labeled": data.labeled, "unlabeled": data.unlabeled, "validation": data.validation}
    return {
        "path": data.path,
        "hash": data.split_hash,
        "counts": {split: None if rows is None else len(rows) for split, rows in splits.items()},
        "first": list(data.labeled[0]["image"]["bytes"]),
        "shards": {split: [str(file) for file in files] for split, files in data.shards.items()},
    }


def names_to_predict(source: str | Path, **options: Any) -> list[str]:
    """Return the names of the images that prediction finds."""
    from s4mim_hf.prediction.sources import open_images

    found = open_images([str(source)], Path("nowhere"), **options)
    return [image.name for part in found.parts() for image in part.images()]


def problems_of(path: str) -> list[str]:
    """Check prepared data, and return what is wrong with it."""
    from s4mim_hf.data.checking import check

    return list(check(path).problems)


def published(source: Path, repo_id: str, **options: Any) -> dict[str, Any]:
    """Publish a run or a model, and return what was made and what was said."""
    from s4mim_hf.hub.publication import prepare_publication
    from s4mim_hf.hub.publish import publish

    said: list[str] = []
    done = publish(prepare_publication(source, repo_id), repo_id, say=said.append, **options)
    return {"url": done.url, "commit": done.commit, "changed": done.changed, "said": said}


def rehearsed(source: Path, repo_id: str, **options: Any) -> list[str]:
    """Rehearse the same, and return the notes."""
    from s4mim_hf.hub.publication import prepare_publication
    from s4mim_hf.hub.publish import rehearse

    return rehearse(prepare_publication(source, repo_id), repo_id, **options)


def script(path: Path, folder: Path, *arguments: str) -> str:
    """Run a script in a folder, and return what it printed."""
    printed = io.StringIO()
    sys.argv = [str(path), *arguments]
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        runpy.run_path(str(path), run_name="__main__")
    return printed.getvalue()


def hurry() -> None:
    """Make every second that is waited for a thousandth of one, so that trying again takes no time."""
    sleep = time.sleep
    time.sleep = lambda seconds: sleep(seconds / 1000)


def serve() -> None:
    """Answer requests until there are no more."""
    hurry()
    answers = os.fdopen(os.dup(1), "w")
    # What the libraries print is not part of the answers.
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line, object_hook=lambda found: Path(found["path"]) if set(found) == {"path"} else found)
        os.environ.pop("HF_TOKEN", None)
        if request["token"]:
            os.environ["HF_TOKEN"] = request["token"]
        module, _, name = request["function"].partition(":")
        function = getattr(import_module(module), name)
        options = {key: print if value == "print" else value for key, value in request["options"].items()}
        try:
            answer = {"result": function(*request["arguments"], **options)}
        except Exception as error:
            from s4mim_hf.errors import InputError

            answer = {"error": str(error) if isinstance(error, InputError) else f"NO InputError: {error!r}"}
        answers.write(json.dumps(answer, default=str) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve()
