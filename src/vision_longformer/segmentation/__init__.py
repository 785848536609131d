"""Semantic segmentation on any of our backbones, or of timm's."""

from vision_longformer.segmentation.config import SemanticConfig
from vision_longformer.segmentation.semantic import SemanticFPN, build_semantic_fpn

__all__ = ["SemanticConfig", "SemanticFPN", "build_semantic_fpn"]
