"""Models in the folders and on the hub that timm, transformers and huggingface_hub share."""

from vision_longformer.hub.model_card import model_card
from vision_longformer.hub.transfer import push, read, write

__all__ = ["model_card", "push", "read", "write"]
