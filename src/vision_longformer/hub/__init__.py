"""Models in the folders and on the hub that timm, transformers and huggingface_hub share."""

from vision_longformer.hub.model_card import model_card
from vision_longformer.hub.transfer import push, read, write
from vision_longformer.hub_interface import provide

__all__ = ["model_card", "push", "read", "write"]

provide(write=write, read=read, push=push)
