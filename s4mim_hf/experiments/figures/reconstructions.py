"""What basic and class-wise masked image modelling reconstruct of the same masked images, as a figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from s4mim_hf.data.prepared import decode_image
from s4mim_hf.engine.finished_run import FinishedRun, load_finished_run
from s4mim_hf.engine.reconstruction import Reconstructor, cut_to_window, pick_rows, to_pixel_values
from s4mim_hf.errors import InputError
from s4mim_hf.evaluation.inference import predict_logits
from s4mim_hf.methods import S4MIMMethodConfig
from s4mim_hf.visualization import draw_grid


def draw_reconstructions(
    basic_run: Path, class_wise_run: Path, path: Path, *, count: int = 4, data_path: str | None = None
) -> None:
    """Write one PNG that shows what basic and class-wise masked image modelling reconstruct of the same masked images.

    A row per validation image (its centre, where the runs are evaluated in windows); columns: the image, the class map
    that the class-wise decoder was given (its teacher's prediction), the masked image, and the image with its masked
    pixels filled in by either run's student. The masks are drawn from the class-wise run's seed.

    Args:
        basic_run: folder of a finished run with method.reconstruction.regions=image.
        class_wise_run: folder of a finished run with regions=class, on the same data and with the same patches.
        path: where the PNG goes.
        count: validation images.
        data_path: where the runs' data lies now; None: where it lay then.

    Raises:
        InputError: a run has no checkpoint or no decoder, reconstructs otherwise, or the two do not fit each other.
    """
    basic = _load_with_decoder(basic_run, "image", data_path)
    class_wise = _load_with_decoder(class_wise_run, "class", data_path)
    _check_pair(basic, class_wise, basic_run, class_wise_run)
    data, seed = class_wise.data, class_wise.config.seed
    if data.validation is None:
        raise InputError(f"{data.path} has no validation images to draw; prepare it with some")
    painters = [_reconstructor(run) for run in (basic, class_wise)]
    rows: list[dict[str, np.ndarray | None]] = []
    for number, row in enumerate(pick_rows(data.validation, count)):
        image = cut_to_window(decode_image(row["image"]["bytes"]), class_wise.config.evaluation.inference)
        prediction = _prediction(class_wise, image)
        mask = painters[1].patch_mask(prediction, seed, number)
        found = [
            painter.reconstruct(run.student, to_pixel_values(image, *run.statistics), mask, prediction)
            for painter, run in zip(painters, (basic, class_wise), strict=True)
        ]
        rows.append(
            {
                "image": image,
                "class map of the decoder": found[1].class_map,
                "masked": found[1].masked,
                "basic": found[0].filled,
                "class-wise": found[1].filled,
            }
        )
    note = next((painter.note for painter in painters if painter.note), "")
    draw_grid(rows, data.id2label, data.palette, path, ignore_index=data.ignore_index, note=note, text_size=24)


def _load_with_decoder(folder: Path, regions: str, data_path: str | None) -> FinishedRun:
    """Load a run that reconstructs by `regions`, "image" or "class"."""
    run = load_finished_run(folder, data_path)
    method = run.config.method
    if not isinstance(method, S4MIMMethodConfig) or run.student.mim_decoder is None:
        raise InputError(
            f"{folder} is a run of method {method.name!r} that reconstructs nothing; name one of method.name=s4mim "
            "with method.reconstruction.weight above 0"
        )
    if method.reconstruction.regions != regions:
        raise InputError(
            f"{folder} has method.reconstruction.regions={method.reconstruction.regions}, but a run with {regions} is "
            "needed in its place; give the basic run first and the class-wise one second"
        )
    return run


def _check_pair(basic: FinishedRun, class_wise: FinishedRun, basic_run: Path, class_wise_run: Path) -> None:
    """Refuse two runs that cannot be shown on the same masked images."""
    if basic.data.split_hash != class_wise.data.split_hash:
        raise InputError(
            f"{basic_run} and {class_wise_run} learned from different splits ({basic.config.data.path} and "
            f"{class_wise.config.data.path}); give two runs on the same data"
        )
    sizes = [_reconstructor(run).method.masking.patch_size for run in (basic, class_wise)]
    if sizes[0] != sizes[1]:
        raise InputError(
            f"method.masking.patch_size is {sizes[0]} in {basic_run} and {sizes[1]} in {class_wise_run}; give two runs "
            "with the same patches"
        )


def _reconstructor(run: FinishedRun) -> Reconstructor:
    method = run.config.method
    assert isinstance(method, S4MIMMethodConfig)
    return Reconstructor(method, len(run.data.id2label), run.data.ignore_index, *run.statistics)


def _prediction(run: FinishedRun, image: np.ndarray) -> torch.Tensor:
    """Return the teacher's classes of a picture, int64 (1, H, W)."""
    pixel_values = to_pixel_values(image, *run.statistics)
    with torch.no_grad():
        return predict_logits(run.teacher.model, pixel_values, run.config.evaluation.inference).argmax(dim=1)
