"""What a run learns from: the `data` section of its configuration.

Both classes refuse unknown keys and values out of range when they are built; see `s4mim_hf.engine.run_config`.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Self

from pydantic import ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from pydantic.dataclasses import dataclass

from s4mim_hf.data.views import WeakViewConfig

_STRICT_KEYS = ConfigDict(extra="forbid", allow_inf_nan=False)

Text = Annotated[str, Field(min_length=1)]
ThreeNumbers = tuple[float, float, float]
ThreePositive = tuple[PositiveFloat, PositiveFloat, PositiveFloat]


@dataclass(frozen=True, kw_only=True, config=_STRICT_KEYS)
class UnlabeledConfig:
    """Unlabelled images read from their shards while training, for pools that fit on no disk.

    Args:
        streaming: whether they are; the other settings belong to it.
        shards: parquet files and webdataset tars (.tar, .tar.gz), local, on the Hub (hf://datasets/USER/NAME/...) or
            by URL; one or a list, each a name or a pattern with * or {000..099}. Empty: the unlabelled shards of
            `data.path`.
        image_column: the parquet column of the images (None: image), or the suffix of their members in a tar, such as
            rgb.png (None: any usual one).
        shuffle_buffer: undecoded images that each process holds to shuffle among; at least `lanes`.
        lanes: sequences that each process reads side by side. Shards are dealt to them, and a multiple of
            `data.num_workers` lets every worker read its own. The pictures depend on it, and not on the workers.
    """

    streaming: bool = False
    shards: Text | tuple[Text, ...] = ()
    image_column: Text | None = None
    shuffle_buffer: PositiveInt = 1024
    lanes: PositiveInt = 8

    @property
    def patterns(self) -> tuple[str, ...]:
        """The shards as a list, however they were given."""
        return (self.shards,) if isinstance(self.shards, str) else self.shards

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.streaming:
            for field in dataclasses.fields(self):
                if getattr(self, field.name) != field.default:
                    raise ValueError(
                        f"data.unlabeled.{field.name} is set, but the unlabelled images are not streamed; add "
                        "data.unlabeled.streaming=true"
                    )
        if self.shuffle_buffer < self.lanes:
            raise ValueError(
                f"data.unlabeled.shuffle_buffer is {self.shuffle_buffer}, but each of the {self.lanes} lanes holds one "
                "image at least; raise it, or lower data.unlabeled.lanes"
            )
        return self


@dataclass(frozen=True, kw_only=True, config=_STRICT_KEYS)
class DataConfig:
    """What the run learns from.

    Args:
        path: a folder that `scripts/prepare_data.py` wrote, the same on the Hub as hf://datasets/USER/NAME, or
            "synthetic" (or "synthetic:SEED"), the embedded data; "synthetic:SEED:all" is that with all labels.
        views: the weak view that every training image passes through.
        labeled_batch_size: labelled images per process and micro-batch.
        unlabeled_batch_size: unlabelled images per process and micro-batch; unused by a method without them.
        num_workers: loader processes per process; the pictures do not depend on it.
        image_mean: per RGB channel, of images in [0, 1]; None: the backbone family's (0.5 for mobilenet_v2, CLIP's
            own for CLIP, ImageNet's for the others).
        image_std: likewise, above 0; given together with `image_mean`.
        unlabeled: a pool of unlabelled images beside `path`, read while training.
    """

    path: str = Field(default="synthetic", min_length=1)
    views: WeakViewConfig = Field(default_factory=WeakViewConfig)
    labeled_batch_size: PositiveInt = 4
    unlabeled_batch_size: PositiveInt = 4
    num_workers: NonNegativeInt = 2
    image_mean: ThreeNumbers | None = None
    image_std: ThreePositive | None = None
    unlabeled: UnlabeledConfig = Field(default_factory=UnlabeledConfig)

    @model_validator(mode="after")
    def _mean_with_std(self) -> Self:
        if (self.image_mean is None) != (self.image_std is None):
            raise ValueError("data.image_mean and data.image_std belong together: set both, or neither")
        return self
