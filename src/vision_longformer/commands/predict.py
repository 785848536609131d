"""`vil predict`: the classes of images, the objects in them, or the classes of their pixels."""

from __future__ import annotations

from vision_longformer.commands.common import Arguments, Parser, UsageError
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


def arguments() -> Parser:
    parser = Parser(
        description=(
            "Name the most probable classes of images; or draw the objects or the classes of pixels that a detector or "
            "a segmentation model finds in images of any size."
        )
    )
    add = parser.add_argument
    add("checkpoint", type=str, metavar="CHECKPOINT", help="Weights, such as RUN/best.safetensors.")
    add("images", nargs="+", type=str, metavar="IMAGES", help="Files, folders (with all below them) or patterns.")
    add(
        "--output",
        type=str | None,
        metavar="PATH",
        help="Classifiers: file to write instead of printing. Others: folder of pictures and results (predictions).",
    )
    add("--device", default="auto", type=str, help="Where to compute: cpu, cuda, cuda:1; auto prefers a GPU.")
    add("--top", type=int | None, metavar="N", help="Classifiers: how many classes to name (5).")
    add("--format", type=str | None, metavar="NAME", help="Classifiers: table, json or csv.")
    add("--size", type=int | None, metavar="PIXELS", help="Classifiers: side of the square; that of training.")
    add("--min-score", type=float | None, metavar="SCORE", help="Detectors: leave out less certain objects (0.5).")
    add("--classes", type=str, nargs="+", metavar="NAME", help="Detectors: keep these classes only.")
    add("--detections", type=int | None, metavar="N", help="Detectors: the most objects of an image; as in training.")
    add("--tile", type=int | None, metavar="PIXELS", help="Others: side of the tiles; as large as memory allows.")
    add("--overlap", type=int | None, metavar="PIXELS", help="Others: what tiles share; a quarter of their side.")
    add("--memory", type=str | None, metavar="SIZE", help="Others: bound on a pass, as 4GB; 60%% of what is free.")
    add("--scale", type=float | None, metavar="FACTOR", help="Others: resize images by this; as in training.")
    return parser


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
