"""How scripts fail: one sentence and exit code 2 for what the machine refuses, a traceback for faults of ours."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from torch.testing._internal.distributed.fake_pg import FakeStore

from s4mim_hf.command_line import run
from s4mim_hf.errors import InputError

SMALL = [
    "model.backbone_config={model_type: resnet, embedding_size: 8, hidden_sizes: [8, 8, 8, 8], depths: [1, 1, 1, 1]}",
    "model.decoder_channels=8", "data.views.crop_size=32", "data.labeled_batch_size=2", "data.num_workers=0",
    "method.name=supervised", "optim.max_steps=2", "optim.warmup_steps=0", "panels.count=0", "log.tracker=none",
]  # fmt: skip


def code_of(error: BaseException | None) -> int:
    def main() -> None:
        if error is not None:
            raise error

    with pytest.raises(SystemExit) as stopped:
        run(main)
    return stopped.value.code  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (None, 0, ""),
        (InputError("no such thing; name another"), 2, "error: no such thing; name another\n"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to get 2 GiB."), 2, "full (CUDA out of memory); use"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/a/metrics.jsonl"), 2, "runs/a/metrics.jsonl: No space"),
        (PermissionError(errno.EACCES, "Permission denied", "runs/a"), 2, "runs/a: Permission denied; correct its"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), 2, "No space left on device"),
    ],
)  # fmt: skip
def test_what_is_no_fault_of_ours_is_one_sentence(
    error: BaseException | None, code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code_of(error) == code
    printed = capsys.readouterr().err
    assert sentence in printed
    assert printed.count("\n") == (error is not None)


@pytest.mark.parametrize("error", [None, InputError("no such thing; name another"), KeyboardInterrupt()])
def test_processes_leave_their_group_before_the_interpreter_ends(error: BaseException | None, tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    code_of(error)
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(("error", "stays"), [(None, False), (InputError("no such thing; name another"), True)])
def test_a_process_that_failed_does_not_wait_for_the_others(error: BaseException | None, stays: bool) -> None:
    """Leaving a group of NCCL waits for what the others still expect; any backend but gloo may."""
    torch.distributed.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    code_of(error)
    assert torch.distributed.is_initialized() == stays
    if stays:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    "error", [OSError(errno.EBADF, "Bad file descriptor"), SafetensorError("header too large"), ValueError("x")]
)
def test_faults_of_ours_are_not_hidden(error: Exception) -> None:
    with pytest.raises(type(error)):
        run(lambda: (_ for _ in ()).throw(error))  # type: ignore[arg-type]


def test_a_full_disk_ends_a_run_with_a_sentence(repository: Path, tmp_path: Path) -> None:
    """Files above a limit cannot be written, as on a full disk; a checkpoint is the first that is so large."""
    command = ["train.py", "--recipe", "demo", f"output_dir={tmp_path / 'run'}", "checkpoint.interval=1", *SMALL]
    limited = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000)); "
        f"sys.argv = sys.argv[1:]; runpy.run_path({str(repository / 'scripts' / 'train.py')!r}, run_name='__main__')"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", limited, *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 2, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    last = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(last) == 1
    assert f"the checkpoint {tmp_path}/run/checkpoints/step_1 cannot be written (" in last[0]
    assert "--resume" in last[0]
    assert not (tmp_path / "run/checkpoints/step_1").exists()
