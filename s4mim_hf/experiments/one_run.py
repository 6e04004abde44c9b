"""One run of an ablation, as a process of its own: `python -m s4mim_hf.experiments.one_run CONFIG.yaml`.

It trains like scripts/train.py, and writes beside the results what they were measured on. An error is the last line
that it prints.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import torch

from s4mim_hf.engine.build import Run
from s4mim_hf.engine.config_loading import load_run_config
from s4mim_hf.engine.results import machine_name
from s4mim_hf.engine.run import train
from s4mim_hf.errors import InputError
from s4mim_hf.experiments.plan import settings_hash

CIRCUMSTANCES_FILE = "circumstances.json"


def main() -> None:
    """Train, or go on training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, metavar="CONFIG.yaml", help="the run's configuration, output_dir included")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in output_dir")
    parser.add_argument("--jobs", type=int, default=1, help="how many runs share the machine, to be written down")
    parser.add_argument("--end-with-parent", action="store_true", help="stop when standard input is closed")
    arguments = parser.parse_args()
    if arguments.end_with_parent:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    run = train(load_run_config(arguments.config), resume=arguments.resume)
    path = run.output_dir / CIRCUMSTANCES_FILE
    path.write_text(json.dumps(circumstances(run, arguments.jobs), indent=1) + "\n", encoding="utf-8")


def circumstances(run: Run, jobs: int) -> dict[str, Any]:
    """Return what a run was measured on: settings, images, machine, torch, threads, runs that shared the machine."""
    unlabeled = 0 if run.data.unlabeled is None else len(run.data.unlabeled)
    return {
        "settings_hash": settings_hash(run.trainer.config),
        "labeled": len(run.data.labeled),
        # How many a streamed pool has, nobody has counted.
        "unlabeled": None if run.trainer.config.data.unlabeled.streaming else unlabeled,
        "machine": machine_name(run.trainer.accelerator.device),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "jobs": jobs,
    }


def _end_with_parent() -> None:
    """Wait for the other end of standard input to close, which it does however the parent ends; then end at once."""
    # Not sys.stdin: a thread that waits in it makes Python abort when the run ends by itself.
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        if isinstance(error, InputError):
            print(f"\nerror: {error}", file=sys.stderr)
        else:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        # Not by sys.exit: progress bars that are closed on the way out would print after the error.
        os._exit(2 if isinstance(error, InputError) else 1)
