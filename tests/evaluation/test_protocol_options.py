"""A protocol and the options that mean it."""

from __future__ import annotations

import argparse

import pytest

from s4mim_hf.errors import InputError
from s4mim_hf.evaluation.inference import InferenceConfig
from s4mim_hf.evaluation.protocol_options import add_protocol_options, inference_of, options_of


def parsed(*options: str, center_crop: bool = True) -> InferenceConfig:
    parser = argparse.ArgumentParser()
    add_protocol_options(parser, center_crop=center_crop)
    return inference_of(parser.parse_args(options))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], InferenceConfig()),
        (["--sliding-window"], InferenceConfig("sliding_window", 513)),
        (["--sliding-window", "--window", "20"], InferenceConfig("sliding_window", 20)),
        (["--center-crop", "9", "--tta"], InferenceConfig("center_crop", 9, scales=(0.75, 1.0, 1.25), flip=True)),
        (["--tta"], InferenceConfig(scales=(0.75, 1.0, 1.25), flip=True)),
    ],
)
def test_options_mean_a_protocol_and_the_protocol_these_options(options: list[str], expected: InferenceConfig) -> None:
    assert parsed(*options) == expected
    assert parsed(*(options_of(expected) or ["none"])) == expected if options else options_of(expected) == []


@pytest.mark.parametrize(
    "inference",
    [InferenceConfig(flip=True), InferenceConfig(scales=(0.5, 1.0)), InferenceConfig("sliding_window", 9, 0.5)],
)
def test_a_protocol_without_options(inference: InferenceConfig) -> None:
    assert options_of(inference) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--window", "20"], "--window 20 belongs to --sliding-window"),
        (["--window", "20", "--center-crop", "9"], "--window 20 belongs to --sliding-window"),
        (["--sliding-window", "--window", "0"], "--window is 0; it must be at least 1"),
        (["--center-crop", "-3"], "--center-crop is -3; it must be at least 1"),
    ],
)
def test_what_cannot_be(options: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parsed(*options)


def test_prediction_has_no_centre_crop(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("--center-crop", "9", center_crop=False)
    assert "--center-crop" in capsys.readouterr().err
