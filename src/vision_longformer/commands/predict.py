"""`vil predict`: the classes of images, the objects in them, or the classes of their pixels."""

from __future__ import annotations

from collections.abc import Callable

from vision_longformer.commands.common import Arguments, UsageError
from vision_longformer.commands.predict_classes import predict_classes
from vision_longformer.commands.predict_dense import predict_dense
from vision_longformer.images.find import find_images
from vision_longformer.training.weight_files import load_weights
from vision_longformer.utils.devices import choose_device

# By what a model gives: options that are not for it, and what carries the command out.
FOR_CLASSIFIERS = ("top", "format", "size")
FOR_DETECTORS = ("min_score", "classes", "detections")
FOR_OTHERS = (*FOR_DETECTORS, "tile", "overlap", "memory", "scale")
UNFIT = {"classes": FOR_OTHERS, "objects": FOR_CLASSIFIERS, "pixels": (*FOR_CLASSIFIERS, *FOR_DETECTORS)}
PREDICTORS: dict[str, Callable[..., int]] = {
    "classes": predict_classes,
    "objects": predict_dense,
    "pixels": predict_dense,
}


def run(arguments: Arguments) -> int:
    try:
        trained = load_weights(arguments.checkpoint)
        for name in UNFIT[trained.gives]:
            if arguments[name] is not None:
                raise UsageError(
                    f"--{name.replace('_', '-')}: is not for {arguments.checkpoint}, which was trained for "
                    f"{trained.task.replace('_', ' ')}"
                )
        paths = [source.path for source in find_images(arguments.images)]
        device = choose_device(arguments.device)
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error
    return PREDICTORS[trained.gives](trained, paths, arguments, device)
