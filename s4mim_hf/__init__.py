"""S4MIM: semi-supervised semantic segmentation with class-wise masked image modelling.

Importing the package registers its classes with transformers, so that `AutoModel.from_pretrained` loads a saved model
without `trust_remote_code`.
"""

from s4mim_hf.modeling import (
    S4MIMConfig,
    S4MIMForSemanticSegmentation,
    S4MIMForSemiSupervisedSegmentation,
    S4MIMImageProcessor,
    register_auto_classes,
)

__version__ = "0.1.0"

register_auto_classes()

__all__ = [
    "S4MIMConfig",
    "S4MIMForSemanticSegmentation",
    "S4MIMForSemiSupervisedSegmentation",
    "S4MIMImageProcessor",
]
