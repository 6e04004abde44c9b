"""The configuration of Xception, which transformers does not have, beside those that it has."""

from __future__ import annotations

from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig


class XceptionConfig(PreTrainedConfig):
    """Xception-65 as semi-supervised segmenters use it: Chollet's network, deeper, strided convolutions for pooling.

    Args:
        num_channels: Channels of the images.
        stem_channels: Of the two convolutions before the blocks.
        entry_channels: Of the three blocks that halve the size; the second gives the stride-4 features.
        middle_blocks: Residual blocks of the last entry width.
        exit_channels: Of the last block and of the three convolutions after it.
        batch_norm_momentum: Share of the new statistics in the running ones, 0 < m <= 1.

    Raises:
        ValueError: An unknown key, or a width that is no positive integer.
    """

    model_type = "xception"

    num_channels: int = 3
    stem_channels: list[int] | tuple[int, ...] = (32, 64)
    entry_channels: list[int] | tuple[int, ...] = (128, 256, 728)
    middle_blocks: int = 16
    exit_channels: list[int] | tuple[int, ...] = (1024, 1536, 1536, 2048)
    batch_norm_momentum: float | int = 0.1

    def __post_init__(self, **kwargs: Any) -> None:
        """Refuse unknown keys, check every value."""
        for key in kwargs:
            if not key.startswith("_") and not hasattr(PreTrainedConfig, key) and key not in _STANDARD_KEYS:
                fields = ", ".join(name for name in XceptionConfig.__annotations__ if name != "model_type")
                raise ValueError(f"the backbone 'xception' has no setting {key!r}; it has {fields}")
        super().__post_init__(**kwargs)
        for name, count in (("stem_channels", 2), ("entry_channels", 3), ("exit_channels", 4)):
            values = list(getattr(self, name))
            setattr(self, name, values)
            if len(values) != count or any(type(value) is not int or value < 1 for value in values):
                raise ValueError(f"the backbone 'xception' has {name} {values}; it takes {count} positive integers")
        if type(self.middle_blocks) is not int or self.middle_blocks < 0:
            raise ValueError(f"the backbone 'xception' has middle_blocks {self.middle_blocks!r}; it must be at least 0")
        if not 0 < self.batch_norm_momentum <= 1:
            raise ValueError(
                f"the backbone 'xception' has batch_norm_momentum {self.batch_norm_momentum}; it must be above 0, at "
                "most 1"
            )


_STANDARD_KEYS = {"num_labels", "name_or_path", "model_type", "torch_dtype", "attn_implementation", "auto_map"}


def backbone_config_class(model_type: Any) -> Any:
    """Return the configuration class of an encoder's name: transformers', or ours; None where there is none."""
    if model_type == XceptionConfig.model_type:
        return XceptionConfig
    return CONFIG_MAPPING[model_type] if model_type in CONFIG_MAPPING else None  # noqa: SIM401 - its get() differs


def backbone_names() -> list[str]:
    """Return every name that `backbone_config_class` knows."""
    return [*CONFIG_MAPPING.keys(), XceptionConfig.model_type]
