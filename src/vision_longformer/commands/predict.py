"""`vil predict`: the classes of images, the objects in them, or the classes of their pixels."""

from __future__ import annotations

from vision_longformer.commands.common import Arguments, UsageError
from vision_longformer.commands.predict_classes import predict_classes
from vision_longformer.commands.predict_dense import predict_dense
from vision_longformer.images.find import find_images
from vision_longformer.training.weight_files import load_weights
from vision_longformer.utils.devices import choose_device

# Options that are for some tasks alone.
FOR_CLASSIFIERS = ("top", "format", "size")
FOR_DETECTORS = ("min_score", "classes", "detections")
FOR_OTHERS = (*FOR_DETECTORS, "tile", "overlap", "memory", "scale")
UNFIT = {
    "classification": FOR_OTHERS,
    "detection": FOR_CLASSIFIERS,
    "instance_segmentation": FOR_CLASSIFIERS,
    "semantic_segmentation": (*FOR_CLASSIFIERS, *FOR_DETECTORS),
}


def run(arguments: Arguments) -> int:
    try:
        trained = load_weights(arguments.checkpoint)
        for name in UNFIT[trained.task]:
            if arguments[name] is not None:
                raise UsageError(
                    f"--{name.replace('_', '-')}: is not for {arguments.checkpoint}, which was trained for "
                    f"{trained.task.replace('_', ' ')}"
                )
        paths = [source.path for source in find_images(arguments.images)]
        device = choose_device(arguments.device)
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error
    if trained.task == "classification":
        return predict_classes(trained, paths, arguments, device)
    return predict_dense(trained, paths, arguments, device)
