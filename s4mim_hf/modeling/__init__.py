"""The models, as a Hub repository ships them: this folder imports nothing of the package outside itself."""

from __future__ import annotations

from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForSemanticSegmentation

from .configuration_s4mim import S4MIMConfig
from .feature_noise import FeatureNoise
from .image_processing_s4mim import S4MIMImageProcessor
from .modeling_s4mim import (
    S4MIMForSemanticSegmentation,
    S4MIMForSemiSupervisedSegmentation,
    SegmentationFeatures,
    SemiSupervisedOutput,
)
from .normalization import ViewGroup, convert_batch_norm, freeze_batch_norm


def register_auto_classes() -> None:
    """Let transformers' Auto classes find ours in this process without `trust_remote_code`; harmless when repeated."""
    AutoConfig.register(S4MIMConfig.model_type, S4MIMConfig, exist_ok=True)
    AutoModel.register(S4MIMConfig, S4MIMForSemanticSegmentation, exist_ok=True)
    AutoModelForSemanticSegmentation.register(S4MIMConfig, S4MIMForSemanticSegmentation, exist_ok=True)
    AutoImageProcessor.register(S4MIMConfig, slow_image_processor_class=S4MIMImageProcessor, exist_ok=True)


__all__ = [
    "FeatureNoise",
    "S4MIMConfig",
    "S4MIMForSemanticSegmentation",
    "S4MIMForSemiSupervisedSegmentation",
    "S4MIMImageProcessor",
    "SegmentationFeatures",
    "SemiSupervisedOutput",
    "ViewGroup",
    "convert_batch_norm",
    "freeze_batch_norm",
    "register_auto_classes",
]
