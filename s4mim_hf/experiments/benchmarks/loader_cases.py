"""Which pictures loading is measured on, and the ways to load them: decoding alone, our loader, and the reference."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import default_collate

from s4mim_hf.data.loaders import Batch, PairedBatches
from s4mim_hf.data.prepared import features_of
from s4mim_hf.data.strong_views import StrongViewConfig, normalize
from s4mim_hf.data.views import WeakViewConfig
from s4mim_hf.experiments.benchmarks.loader_pictures import Sample
from s4mim_hf.experiments.benchmarks.loader_reference import load_labeled, load_unlabeled
from s4mim_hf.methods.base import StepContext
from s4mim_hf.methods.unlabeled import make_strong_view
from s4mim_hf.randomness import derive_seed

BARE, OURS, WITH_DEVICE, REFERENCE = "bare decoding", "our worker", "our worker + device's part", "reference"
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class LoaderCase:
    """One kind of pictures.

    Args:
        name: in the tables.
        width: of a picture, in pixels.
        height: likewise.
        image_format: "JPEG" or "PNG".
        crop_size: S.
        pictures: how many different ones.
        batches: that a round measures.
        batch_size: labelled images of a batch, and as many unlabelled ones.
        compared_with: the row (a key of the costs) whose rate our loader's is compared with.
        goal: the ratio to reach.
    """

    name: str
    width: int
    height: int
    image_format: str
    crop_size: int
    pictures: int
    batches: int
    batch_size: int
    compared_with: str
    goal: float


CASES = (
    LoaderCase("500x375 JPEGs, crop 321", 500, 375, "JPEG", 321, 16, 12, 4, REFERENCE, 3.0),
    LoaderCase("2048x1024 PNGs, crop 801", 2048, 1024, "PNG", 801, 4, 4, 2, BARE, 0.8),
)
QUICK_CASES = (
    LoaderCase("100x75 JPEGs, crop 64", 100, 75, "JPEG", 64, 2, 2, 1, REFERENCE, 3.0),
    LoaderCase("128x64 PNGs, crop 50", 128, 64, "PNG", 50, 2, 2, 1, BARE, 0.8),
)


@dataclass(frozen=True)
class Pipelines:
    """The ways to load the pictures of one case; each gives a batch of labelled and as many unlabelled images.

    Args:
        case: sizes.
        samples: the pictures.
        with_unlabeled: False for batches of labelled images alone.
    """

    case: LoaderCase
    samples: Sequence[Sample]
    with_unlabeled: bool = True

    @property
    def images(self) -> int:
        """Images of a batch."""
        return self.case.batch_size * (2 if self.with_unlabeled else 1)

    def _numbers(self, batch: int) -> range:
        return range(batch * self.case.batch_size, (batch + 1) * self.case.batch_size)

    def _sample(self, number: int, unlabeled: bool) -> Sample:
        # The two kinds need not come in step.
        return self.samples[(number + (len(self.samples) // 2 if unlabeled else 0)) % len(self.samples)]

    def decode(self, batch: int) -> None:
        """Decode the pictures of a batch, and throw them away."""
        for number in self._numbers(batch):
            sample = self._sample(number, False)
            files = [sample.image, sample.label]
            files += [self._sample(number, True).image] if self.with_unlabeled else []
            for data in files:
                Image.open(io.BytesIO(data)).load()

    def reference(self, batch: int) -> Any:
        """Load a batch as the peers do; see `loader_reference`."""
        size, labeled, unlabeled = self.case.crop_size, [], []
        for number in self._numbers(batch):
            rng = random.Random(derive_seed(0, "benchmark-reference", number))
            sample = self._sample(number, False)
            labeled.append(load_labeled(sample.image, sample.label, size, rng))
            if self.with_unlabeled:
                unlabeled.append(load_unlabeled(self._sample(number, True).image, size, rng))
        return default_collate(labeled), default_collate(unlabeled) if unlabeled else None

    def ours(self) -> PairedBatches:
        """Return the loader's own batches of the pictures, as rows of a table like those of prepared data."""
        columns: dict[str, list[Any]] = {"id": [str(number) for number in range(len(self.samples))]}
        columns |= {name: [{"bytes": getattr(sample, name)} for sample in self.samples] for name in ("image", "label")}
        rows = datasets.Dataset.from_dict(columns, features=features_of("labeled"))
        return PairedBatches(
            rows,
            rows if self.with_unlabeled else None,
            views=WeakViewConfig(crop_size=self.case.crop_size),
            labeled_batch_size=self.case.batch_size,
            unlabeled_batch_size=self.case.batch_size,
        )


@torch.no_grad()
def finish_on_device(batch: Batch, number: int) -> tuple[Tensor, ...]:
    """Do with a batch what training does on the device, and the reference did in its worker: two strong views, floats.

    Returns:
        float32 labelled images, and for unlabelled images the weak view and two strong ones; int64 labels.
    """
    labeled = normalize(batch.labeled_images, _MEAN, _STD)
    if batch.unlabeled_images is None:
        return labeled, batch.labels.long()
    weak, config = batch.unlabeled_images, StrongViewConfig()
    context = StepContext(step=number, max_steps=1, micro_step=0, seed=0, rank=0, device=weak.device)
    strong = [make_strong_view(weak, config, context, view).images for view in range(2)]
    views = [normalize(images, _MEAN, _STD) for images in (weak, *strong)]
    return labeled, *views, batch.labels.long()
