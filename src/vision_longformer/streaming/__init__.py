"""Images of any size through a model, band by band, in bounded memory."""

from vision_longformer.streaming.maps import StageMap, WorkFolderError
from vision_longformer.streaming.model import stream
from vision_longformer.streaming.result import StreamedFeatures
from vision_longformer.streaming.run import Progress

__all__ = ["Progress", "StageMap", "StreamedFeatures", "WorkFolderError", "stream"]
