"""scripts/publish.py as it is called: a table and nothing sent, or one sentence and exit code 2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

Call = Callable[[str, list[str]], int]


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))


def test_a_dry_run_shows_everything_and_needs_neither_network_nor_token(
    call_script: Call, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = tmp_path / "card.md"
    arguments = [str(tiny_model), "ann/scenes", "--dry-run", "--license", "mit", "--card", str(card)]
    assert call_script("publish", arguments) == 0
    printed = capsys.readouterr().out
    for name in sorted(path.name for path in tiny_model.iterdir()):
        assert name in printed
    assert f"{(tiny_model / 'model.safetensors').stat().st_size:,}" in printed
    assert "the Hub was not asked" in printed
    assert printed.endswith("dry run: nothing was sent\n")
    header = yaml.safe_load(card.read_text().split("---\n")[1])
    assert header["license"] == "mit"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ann/scenes"], "there is no token of the Hub on this machine; log in with `hf auth login`"),
        (["ann/my scenes", "--dry-run"], "cannot push to the model ann/my scenes: Repo id must use"),
        (["scenes", "--dry-run"], "it does not say whose it is; write USER/scenes"),
        (["ann/scenes", "--license", "free"], "--license is 'free'"),
        (["ann/scenes", "--card", "."], "--card: . is a folder; name a file"),
    ],
)
def test_bad_input_is_one_sentence(
    call_script: Call,
    tiny_model: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    assert call_script("publish", [str(tiny_model), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
