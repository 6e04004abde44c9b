"""Which reconstruction decoder a configuration asks for."""

from __future__ import annotations

from .configuration_s4mim import S4MIMConfig
from .mim_attention import AttentionDecoder
from .mim_head import ClassWiseDecoder, ConvolutionDecoder


def build_mim_decoder(config: S4MIMConfig, in_channels: int, stride: int) -> ClassWiseDecoder:
    """Build the reconstruction decoder of `config.mim_decoder_type`.

    Args:
        config: The architecture.
        in_channels: Channels of z.
        stride: Pixels per position of z.

    Raises:
        ValueError: Tokens of a stride that is no multiple of z's.
    """
    if config.mim_decoder_type == "conv":
        return ConvolutionDecoder(
            in_channels,
            channels=config.mim_channels,
            depth=config.mim_depth,
            kernel_size=config.mim_kernel_size,
            expansion=config.mim_expansion,
            patch=stride,
            masked_features=config.masked_features,
        )
    if config.mim_attention_stride % stride:
        raise ValueError(
            f"S4MIMConfig.mim_attention_stride is {config.mim_attention_stride}; it must be a multiple of {stride}, "
            "the stride of the features that are reconstructed from"
        )
    return AttentionDecoder(
        in_channels,
        channels=config.mim_channels,
        depth=config.mim_depth,
        heads=config.mim_num_heads,
        expansion=config.mim_expansion,
        patch=stride,
        token_patch=config.mim_attention_stride,
        masked_features=config.masked_features,
        attention=config.mim_attention,
    )
