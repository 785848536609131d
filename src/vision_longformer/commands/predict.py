"""`vil predict`: the classes of images, the objects in them, or the classes of their pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vision_longformer.commands.common import Arguments, UsageError
from vision_longformer.commands.on_ray import ray_options, uses_ray
from vision_longformer.commands.predict_classes import predict_classes
from vision_longformer.commands.predict_dense import predict_dense
from vision_longformer.commands.reading import chosen_reading
from vision_longformer.commands.terminal import tell
from vision_longformer.images.find import find_images
from vision_longformer.prediction.predictor import UNFIT
from vision_longformer.pretrained import shipped
from vision_longformer.training.weight_files import load_weights
from vision_longformer.utils.devices import autocast, choose_device
from vision_longformer.weights import WEIGHTS_NAME

# Options of the command alone, by what a model gives.
FOR_OUTPUT = ("outputs", "no_pictures")
FOR_CLASSIFIERS = ("format",)
UNFIT_COMMAND = {"classes": FOR_OUTPUT, "objects": FOR_CLASSIFIERS, "pixels": FOR_CLASSIFIERS}
PREDICTORS: dict[str, Callable[..., int]] = {
    "classes": predict_classes,
    "objects": predict_dense,
    "pixels": predict_dense,
}


DEFAULT = "vision_longformer_nano"


def run(arguments: Arguments) -> int:
    name, images = _chosen(arguments)
    ray = ray_options(arguments) if uses_ray(arguments) else None
    try:
        trained = load_weights(name)
        for option in (*UNFIT[trained.gives], *UNFIT_COMMAND[trained.gives]):
            if arguments[option] not in (None, False):
                raise UsageError(
                    f"--{option.replace('_', '-')}: is not for {name}, which was trained for "
                    f"{trained.task.replace('_', ' ')}"
                )
        trained = trained.with_reading(chosen_reading(arguments, trained=trained.reading, tell=tell))
        sources = find_images(images, remark=tell, urls=True)
        device = choose_device(arguments.device if ray is None else "cpu")  # actors may have GPUs
    except (ImportError, OSError, ValueError) as error:
        raise UsageError(str(error)) from error
    arguments["checkpoint"] = name
    with autocast(device, arguments.precision):
        return PREDICTORS[trained.gives](trained, sources, arguments, device, ray)


def _chosen(arguments: Arguments) -> tuple[str, list[str]]:
    """Return the weights that are meant, a name or a file, and the images."""
    images = list(arguments.images)
    if arguments.model is not None and arguments.checkpoint is not None:
        raise UsageError("--model and --checkpoint: give one of them")
    if arguments.model is not None or arguments.checkpoint is not None:
        return arguments.model or arguments.checkpoint, images
    if not _is_weights(images[0]):
        if DEFAULT not in shipped():
            raise UsageError("give weights with --checkpoint FILE: none come with the package yet")
        return DEFAULT, images
    if len(images) == 1:
        raise UsageError(f"{images[0]}: holds weights; name the images too")
    return images[0], images[1:]


def _is_weights(argument: str) -> bool:
    path = Path(argument)
    return path.suffix == ".safetensors" or (path / WEIGHTS_NAME).is_file()
