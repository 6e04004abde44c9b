"""Which images are found and what they are called; what is written; what a second run keeps."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from s4mim_hf import S4MIMImageProcessor
from s4mim_hf.errors import InputError
from s4mim_hf.evaluation.inference import InferenceConfig
from s4mim_hf.evaluation.prediction import FolderPredictor, claim_output, find_inputs

PALETTE = [(9, 9, 9), (200, 0, 0), (0, 200, 0)]


class Brightest(nn.Module):
    """Predicts each pixel's strongest colour channel, so what is right is known."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.calls = 0

    def forward(self, pixel_values: Tensor) -> SimpleNamespace:
        self.calls += 1
        return SimpleNamespace(logits=pixel_values * self.scale)


def picture(path: Path, size: tuple[int, int] = (8, 6), channel: int = 1, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    pixels[..., channel] = 255
    pixels[: size[1] // 2, :, 0] = pixels[: size[1] // 2, :, 0] // 2 + 1
    Image.fromarray(pixels).save(path, **options)
    return path


def predictor(output: Path, model: nn.Module | None = None, **options: object) -> FolderPredictor:
    processor = S4MIMImageProcessor(image_mean=[0, 0, 0], image_std=[1, 1, 1])
    return FolderPredictor(model or Brightest(), processor, InferenceConfig(), output, palette=PALETTE, **options)


def names(sources: list[Path], output: Path = Path("/nowhere")) -> list[str]:
    return [item.name for item in find_inputs([str(source) for source in sources], output)]


def test_names_keep_relative_paths_and_suffixes_only_where_needed(tmp_path: Path) -> None:
    for path in ("a/x.png", "a/x.JPG", "a/y.bmp", "b/x.png", "b/deep/z.webp", "b/.hidden.png", "b/notes.txt"):
        picture(tmp_path / path) if not path.endswith("txt") else (tmp_path / path).write_text("")
    assert names([tmp_path]) == ["a/x.JPG", "a/x.png", "a/y", "b/deep/z", "b/x"]
    assert names([tmp_path / "b"]) == ["deep/z", "x"]
    assert names([tmp_path / "b", tmp_path / "a"]) == ["b/deep/z", "b/x", "a/x.JPG", "a/x.png", "a/y"]
    assert names([tmp_path / "a" / "y.bmp"]) == ["y"]
    assert names([tmp_path / "a", tmp_path / "a" / "y.bmp"]) == ["x.JPG", "x.png", "y"], "given twice, predicted once"


def test_a_name_that_looks_like_another_s_with_suffix_stays_distinct(tmp_path: Path) -> None:
    for name in ("x.jpg", "x.png", "x.jpg.png"):
        picture(tmp_path / name, format="PNG")
    assert names([tmp_path]) == ["x.jpg", "x.jpg.png", "x.png"]


def test_output_inside_the_input_folder_is_no_input(tmp_path: Path) -> None:
    picture(tmp_path / "x.png")
    predictor(tmp_path / "out").predict(find_inputs([str(tmp_path)], tmp_path / "out"))
    assert names([tmp_path], tmp_path / "out") == ["x"]


def test_missing_and_empty_sources_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no image or folder .*absent\.png"):
        names([tmp_path / "absent.png"])
    with pytest.raises(InputError, match="holds no image"):
        names([tmp_path])


def test_masks_are_palette_pngs_of_ids_at_the_oriented_size(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    picture(tmp_path / "in" / "turned.png", size=(8, 6), channel=2, exif=exif)
    picture(tmp_path / "in" / "plain.png", size=(8, 6), channel=1)
    assert predictor(tmp_path / "out").predict(find_inputs([str(tmp_path / "in")], tmp_path / "out")) == {}
    with Image.open(tmp_path / "out" / "masks" / "turned.png") as mask:
        assert (mask.mode, mask.size) == ("P", (6, 8))
        assert mask.getpalette()[:9] == [channel for color in PALETTE for channel in color]
        assert (np.asarray(mask) == 2).all()
    with Image.open(tmp_path / "out" / "masks" / "plain.png") as mask:
        assert (np.asarray(mask) == 1).all()
    assert not (tmp_path / "out" / "overlays").exists()


def test_a_resizing_processor_still_gives_masks_of_the_image_s_size(tmp_path: Path) -> None:
    picture(tmp_path / "in" / "x.png", size=(31, 17))
    processor = S4MIMImageProcessor(do_resize=True, size={"height": 8, "width": 8})
    FolderPredictor(Brightest(), processor, InferenceConfig(), tmp_path / "out", palette=PALETTE).predict(
        find_inputs([str(tmp_path / "in")], tmp_path / "out")
    )
    with Image.open(tmp_path / "out" / "masks" / "x.png") as mask:
        assert mask.size == (31, 17)


def test_a_photo_above_the_models_longest_side_gets_a_mask_of_its_own_size(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(tmp_path / "in" / "photo.jpg", size=(400, 300), channel=2, exif=exif)
    picture(tmp_path / "in" / "small.png", size=(31, 17), channel=1)
    model, seen = Brightest(), []
    model.register_forward_pre_hook(lambda _, arguments: seen.append(tuple(arguments[0].shape[-2:])))
    processor = S4MIMImageProcessor(max_side=40, image_mean=[0, 0, 0], image_std=[1, 1, 1])
    drawn = []
    FolderPredictor(
        model, processor, InferenceConfig(), tmp_path / "out", palette=PALETTE,
        draw=lambda image, label: drawn.append((image.shape, label.shape)) or image,
    ).predict(find_inputs([str(tmp_path / "in")], tmp_path / "out"))  # fmt: skip
    assert seen == [(40, 30), (17, 31)]
    assert drawn == [((400, 300, 3), (400, 300)), ((17, 31, 3), (17, 31))]
    with Image.open(tmp_path / "out" / "masks" / "photo.png") as mask:
        assert mask.size == (300, 400)
        assert (np.asarray(mask) == 2).mean() > 0.99
    with Image.open(tmp_path / "out" / "masks" / "small.png") as mask:
        assert (np.asarray(mask) == 1).all()


def test_a_second_run_predicts_what_is_missing(tmp_path: Path) -> None:
    for index in range(3):
        picture(tmp_path / "in" / f"{index}.png")
    items = find_inputs([str(tmp_path / "in")], tmp_path / "out")
    first = predictor(tmp_path / "out", batch_size=2)
    first.predict(items)
    assert first.model.calls == 2, "one size: batches of two and one"
    assert all(first.is_done(item) for item in items)
    (tmp_path / "out" / "masks" / "1.png").unlink()
    assert [item.name for item in items if not first.is_done(item)] == ["1"]
    # With overlays wanted as well, masks alone are not everything.
    drawing = predictor(tmp_path / "out", draw=lambda image, label: image)
    assert not any(drawing.is_done(item) for item in items)
    drawing.predict(items)
    assert all(drawing.is_done(item) for item in items)
    assert not list((tmp_path / "out").rglob("*.partial"))


def test_unreadable_images_are_reported_and_the_others_done(tmp_path: Path) -> None:
    good = picture(tmp_path / "in" / "good.png", size=(64, 64))
    (tmp_path / "in" / "cut.png").write_bytes(good.read_bytes()[:60])
    (tmp_path / "in" / "text.jpg").write_bytes(b"not a picture")
    (tmp_path / "in" / "empty.webp").write_bytes(b"")
    failures = predictor(tmp_path / "out").predict(find_inputs([str(tmp_path / "in")], tmp_path / "out"))
    assert sorted(failures) == ["cut", "empty", "text"]
    assert all(failures.values())
    assert [path.name for path in (tmp_path / "out" / "masks").iterdir()] == ["good.png"]


def test_an_output_belongs_to_one_model_and_protocol(tmp_path: Path) -> None:
    claim_output(tmp_path / "out", {"model": "a", "protocol": "whole"})
    claim_output(tmp_path / "out", {"model": "a", "protocol": "whole"})
    with pytest.raises(InputError, match="holds predictions with model 'a', not 'b'"):
        claim_output(tmp_path / "out", {"model": "b", "protocol": "whole"})
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be used for output"):
        claim_output(tmp_path / "file", {"model": "a"})


def test_more_classes_than_a_palette_holds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="257 classes"):
        FolderPredictor(Brightest(), None, InferenceConfig(), tmp_path, palette=[(0, 0, 0)] * 257)
