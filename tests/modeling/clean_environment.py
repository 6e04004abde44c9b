"""A folder with torch, transformers, Pillow and what they declare to need, and processes that see nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

WANTED = ("torch", "transformers", "pillow")


def needed_packages() -> set[str]:
    """Return the names of `WANTED` and of all that they require here, without their extras."""
    found: set[str] = set()
    waiting = list(WANTED)
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in found:
            continue
        try:
            requirements = distribution(name).requires or ()
        except PackageNotFoundError:
            # What a build for another platform would need.
            continue
        found.add(name)
        parsed = map(Requirement, requirements)
        waiting += [one.name for one in parsed if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


def make_site(folder: Path) -> Path:
    """Link the installed files of `needed_packages` into a folder, and nothing else."""
    folder.mkdir(parents=True)
    for name in needed_packages():
        installed = distribution(name)
        tops = {file.parts[0] for file in installed.files or () if file.parts[0] not in ("..", "__pycache__")}
        for top in tops:
            if not (folder / top).exists():
                (folder / top).symlink_to(installed.locate_file(top))
    return folder


def run_in(site: Path, code: str, *arguments: str, environment: Mapping[str, str]) -> tuple[dict, str]:
    """Run code that sees the standard library and `site`; return the JSON of its last line, and its stderr.

    -I leaves out the user's packages, this folder and PYTHONPATH, -S site-packages, and with them editable installs.
    """
    command = [
        sys.executable,
        "-I",
        "-S",
        "-W",
        "error::UserWarning",
        "-c",
        f"import sys; sys.path.append({str(site)!r})\n{code}",
    ]
    kept = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(
        [*command, *arguments], cwd=site, env=kept, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]), done.stderr
