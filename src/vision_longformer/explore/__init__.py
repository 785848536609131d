"""What one asks of features before training anything: what they are worth, what is alike, where else this is.

`similar` and `regions` find what is like a place of an image, `segment` classifies an image by strokes, `probe.fit`
says what features of labelled images are worth, `search.Index` finds images and regions.
"""

from vision_longformer.explore import probe, search
from vision_longformer.explore.head import FittedHead, fit_head, segment
from vision_longformer.explore.search import Index, index_folder
from vision_longformer.explore.similarity import RegionOptions, regions, similar
from vision_longformer.explore.strokes import Stroke
from vision_longformer.explore.tokens import Explored

__all__ = [
    "Explored",
    "FittedHead",
    "Index",
    "RegionOptions",
    "Stroke",
    "fit_head",
    "index_folder",
    "probe",
    "regions",
    "search",
    "segment",
    "similar",
]
