"""Options of the commands that train models and use what was trained."""

from __future__ import annotations

from vision_longformer.commands.common import INTERRUPTED, STOPPED, Parser
from vision_longformer.commands.options.shared import DEVICE_HELP, add_engine, add_json_file, add_precision, add_reading
from vision_longformer.training.config import TrainConfig, type_in_words, walk
from vision_longformer.training.recipes import PRETRAINING, build

FLIPS = ("none", "horizontal", "all")
FLIPS_HELP = "Look at flipped copies of each image too, and average: horizontal is mirrored, all upside down too."
RECIPE_HELP = "A recipe of the package, such as sign_digits_nano, or a YAML file with any of the options below."
CONTINUATION = (
    "Run the same command again to continue a run that was stopped: it ends as if it had not been. Exit codes: "
    f"{STOPPED} stopped by SIGTERM and saved, {INTERRUPTED} by Ctrl-C and saved."
)


def train_parser() -> Parser:
    parser = Parser(description=f"Train a classifier, a detector or a segmentation model. {CONTINUATION}")
    add = parser.add_argument
    add("--recipe", type=str | None, metavar="NAME|FILE", help=RECIPE_HELP)
    add("--data", required=True, type=str, metavar="PATH", help="Folder with train and val, as the task has them.")
    add("--output", required=True, type=str, metavar="DIR", help="Folder of the run; created if need be.")
    add_reading(parser, by_default="Short for --input.{}.")
    _add_recipe(parser, TrainConfig(), without=())
    return parser


def pretrain_parser() -> Parser:
    parser = Parser(
        description="Pretrain a model on images without labels: it learns to say of them what a trained classifier "
        f"says. {CONTINUATION}"
    )
    add = parser.add_argument
    add("--recipe", type=str | None, metavar="NAME|FILE", help=RECIPE_HELP)
    add("--data", required=True, type=str, nargs="+", metavar="DIR", help="Folders of images, searched to any depth.")
    add("--teacher", type=str | None, metavar="NAME|FILE", help="Short for --distillation.teacher.")
    add("--output", required=True, type=str, metavar="DIR", help="Folder of the run; created if need be.")
    _add_recipe(parser, build(PRETRAINING), without=("task", "dense"))
    return parser


def evaluate_parser() -> Parser:
    parser = Parser(
        description="Measure weights on labelled images: top-1 and top-5 accuracy, COCO's average precision, or mean "
        "intersection over union, by what they were trained for."
    )
    add = parser.add_argument
    data_help = "Folder of SPLIT/CLASS/images or a CSV file; of SPLIT.json and SPLIT/; or of SPLIT/ and SPLIT_labels/."
    measures = "the measures (top1 and top5 in percent, box_ap, mask_ap, miou and the like as fractions)"
    size_help = "Side of a classifier's square, or shorter side that others see; by default that of training."
    add("checkpoint", type=str, metavar="CHECKPOINT", help="Weights, such as RUN/best.safetensors.")
    add("--data", required=True, type=str, metavar="PATH", help=data_help)
    add("--split", default="val", type=str, help="Which images.")
    add_json_file(parser, measures)
    add("--size", type=int | None, metavar="PIXELS", help=size_help)
    add("--detections", type=int | None, metavar="N", help="Detectors: the most objects of an image; as in training.")
    add("--flips", choices=FLIPS, default="none", help=FLIPS_HELP)
    add("--skip-invalid", action="store_true", help="Leave out annotations and images that cannot be used.")
    add("--batch-size", type=int | None, metavar="N", help="Images at once: 32 for a classifier, 1 for others.")
    add("--workers", type=int, default=2, metavar="N", help="Processes that read images.")
    add("--device", default="auto", type=str, help=DEVICE_HELP)
    add_precision(parser)
    add_reading(parser)
    return parser


def predict_parser() -> Parser:
    parser = Parser(
        description="Name the most probable classes of images; or draw the objects or the classes of pixels that a "
        "detector or a segmentation model finds in images of any size."
    )
    add = parser.add_argument
    output_help = (
        "Classifiers: file to write instead of printing. Others: folder of pictures and results (predictions)."
    )
    model_help = "Weights that come with the package, by name."
    outputs_help = (
        "Others: what to write, any of geojson, gpkg, labels, csv, parquet; of objects coco too (geojson csv coco), of "
        "classes of pixels (labels csv). labels takes the format that fits the image; png, tiff, geotiff and zarr name "
        "it."
    )
    score_help = "Detectors: leave out less certain objects; by default what did best on val in training, or 0.5."
    simplify_help = "Others: outlines with fewer vertices, moved by at most this; 0 keeps the edges of pixels."
    images_help = "Files, folders (with all below them) or patterns; or URLs of these (s3://, https:// and others)."
    add("images", nargs="+", type=str, metavar="IMAGES", help=images_help)
    add("--model", type=str | None, metavar="NAME", help=model_help)
    add("--checkpoint", type=str | None, metavar="FILE", help="Weights of your own; also as the first of IMAGES.")
    add("--output", type=str | None, metavar="PATH", help=output_help)
    add("--device", default="auto", type=str, help=DEVICE_HELP)
    add_precision(parser, streams=True)
    add("--top", type=int | None, metavar="N", help="Classifiers: how many classes to name (5).")
    add("--format", type=str | None, metavar="NAME", help="Classifiers: table, json or csv.")
    add("--size", type=int | None, metavar="PIXELS", help="Classifiers: side of the square; that of training.")
    add("--min-score", type=float | None, metavar="SCORE", help=score_help)
    add("--classes", type=str, nargs="+", metavar="NAME", help="Detectors: keep these classes only.")
    add("--detections", type=int | None, metavar="N", help="Detectors: the most objects of an image; as in training.")
    add("--tile", type=int | None, metavar="PIXELS", help="Others: side of the tiles; as large as memory allows.")
    add("--overlap", type=int | None, metavar="PIXELS", help="Others: what tiles share; a quarter of their side.")
    add("--memory", type=str | None, metavar="SIZE", help="Others: bound on a pass, as 4GB; 60% of what is free.")
    add("--scale", type=float | None, metavar="FACTOR", help="Others: resize images by this; as in training.")
    add("--flips", choices=FLIPS, default=None, help=f"{FLIPS_HELP} Nothing is streamed then.")
    add("--outputs", type=str, nargs="+", metavar="NAME", help=outputs_help)
    add("--simplify", type=float | None, metavar="PIXELS", help=simplify_help)
    add("--no-pictures", action="store_true", help="Others: neither pictures nor index.html, which is faster.")
    add_reading(parser)
    add_engine(parser)
    return parser


def probe_parser() -> Parser:
    parser = Parser(description="Measure what frozen features are worth on labelled images, before training anything.")
    add = parser.add_argument
    models_help = (
        "Names of `vil models` that have weights, weight files, folders in timm's layout, names of timm; random is an "
        "untrained nano, colours a thumbnail of 8x8 pixels. By default the weights of the package and these two."
    )
    data_help = (
        "A folder of CLASS/images, or of train/CLASS/images and val/CLASS/images, or a CSV file as for training."
    )
    add("data", type=str, metavar="DATA", help=data_help)
    add("--models", nargs="+", type=str, metavar="MODEL", help=models_help)
    add("--size", type=int, default=224, metavar="PIXELS", help="Side of the square that each image is resized to.")
    add(
        "--each", type=int | None, metavar="N", help="Learn from so many images of a class at most, with train and val."
    )
    add("--batch-size", type=int, default=32, metavar="N", help="Images at once.")
    add("--workers", type=int, default=0, metavar="N", help="Processes that read images.")
    add("--device", default="auto", type=str, help=DEVICE_HELP)
    add("--output", type=str | None, metavar="DIR", help="Write a page, DIR/index.html, with what is confused.")
    add_json_file(parser, "the figures")
    return parser


def _add_recipe(parser: Parser, defaults: TrainConfig, *, without: tuple[str, ...]) -> None:
    """Add the options of a recipe as YAML text, see `read_options`; the configuration itself says what is impossible.

    Args:
        parser: Of the command.
        defaults: What help shows as such.
        without: Groups of options that are left out.
    """
    for option in walk(defaults):
        if option.path.split(".")[0] not in without:
            text = f"{option.help} ({type_in_words(option.kind)}; default: {_as_yaml(option.value)})"
            # text, as with another type the parser would take null for an option that was not given
            parser.add_argument(f"--{option.path}", type=str, default=None, metavar="VALUE", help=text)


def _as_yaml(value: object) -> str:
    """Return a value as it is typed."""
    match value:
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        case tuple():
            return f"[{', '.join(map(_as_yaml, value))}]"
        case float():
            return f"{value:.6g}"
    return str(value)
