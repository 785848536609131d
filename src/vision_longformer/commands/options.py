"""What can be typed: the options of every command, in the order in which `vil --help` lists the commands.

Nothing is imported here that takes long: help, and the answer to a misspelt option, need no more than this.
"""

from __future__ import annotations

from collections.abc import Callable

from vision_longformer.commands.common import INTERRUPTED, STOPPED, Parser
from vision_longformer.training.config import TrainConfig, type_in_words, walk
from vision_longformer.training.recipes import PRETRAINING, build

FORMATS = ("auto", "safetensors", "zarr", "geotiff", "parquet")
WAYS = ("auto", "whole", "streamed", "spilled")
MODELS = (
    "vision_longformer_tiny",
    "vision_longformer_small",
    "swin_tiny_patch4_window7_224",
    "convnext_tiny",
    "resnet50",
)
MAX_PIXELS = 500_000_000
PIXELS_HELP = "Refuse images with more pixels that are decoded whole."
PRECISIONS = ("float32", "bf16")
PRECISION_HELP = "float32, or bf16 (autocast): half the memory, and faster where the device computes in it."
DEVICE_HELP = "Where to compute: cpu, cuda, cuda:1; auto prefers a GPU."
FORMAT_HELP = (
    "safetensors: a file; zarr: a folder of compressed chunks, with pictures for viewers; geotiff: a folder of "
    "rasters, for images that say where on earth they lie; auto: safetensors, or zarr where maps are spilled; parquet: "
    "embeddings alone, many in a file."
)
WAY_HELP = (
    "whole: all at once; streamed: band by band, with maps in memory; spilled: with maps in files, from which the same "
    "command goes on after a stop; auto: the first of these that fits."
)
CONTINUATION = (
    "Run the same command again to continue a run that was stopped: it ends as if it had not been. Exit codes: "
    f"{STOPPED} stopped by SIGTERM and saved, {INTERRUPTED} by Ctrl-C and saved."
)


def encode_parser() -> Parser:
    parser = Parser(description="Turn images into feature files, and a report to look at.")
    add = parser.add_argument
    add("images", nargs="+", type=str, metavar="IMAGES", help="Files, folders (with all below them) or patterns.")
    add("--output", required=True, type=str, metavar="DIR", help="Folder for the features; created if need be.")
    _add_model(parser)
    add("--dtype", choices=["float16", "float32"], default="float16", help="Of stored features.")
    add("--format", choices=FORMATS, default="auto", help=FORMAT_HELP)
    add("--max-side", type=int | None, metavar="PIXELS", help="Shrink larger images; by default none are.")
    add("--max-pixels", type=int, default=MAX_PIXELS, metavar="N", help=PIXELS_HELP)
    _add_reading(parser)
    memory_help = "That the process may take, such as 4GB; by default what it holds and 60% of what is free."
    add("--way", choices=WAYS, default="auto", help=WAY_HELP)
    add("--memory", type=str | None, metavar="AMOUNT", help=memory_help)
    add("--work-folder", type=str | None, metavar="DIR", help="Where maps are spilled; by default below --output.")
    batch_help = "Most images of a batch; auto: 32, or fewer of large ones. Each gets the features that it gets alone."
    add("--batch", type=str, default="auto", metavar="N", help=batch_help)
    add(
        "--verify",
        action="store_true",
        help="Read done images and their features too, to see whether they are the same and whole.",
    )
    shard_help = (
        "Which share of the images to encode, of how many, such as 3/16; auto: as torchrun or a SLURM array says. "
        "Shares go into the same DIR, and have no report; `vil status` counts them together."
    )
    add("--shard", type=str | None, metavar="K/N", help=shard_help)
    split_help = "Share each image between the processes that torchrun starts, as strips of rows; features are Zarr."
    add("--split", action="store_true", help=split_help)
    add("--no-report", action="store_true", help="Do not write DIR/index.html.")
    return parser


def status_parser() -> Parser:
    parser = Parser(description="Tell how many images `vil encode` has done, which failed and why, and what is left.")
    parser.add_argument("folder", type=str, metavar="DIR", help="The --output of vil encode.")
    parser.add_argument("--json", action="store_true", help="Print JSON, with all that failed.")
    return parser


def models_parser() -> Parser:
    parser = Parser(description="List the models with their sizes, costs and published accuracies.")
    parser.add_argument("--size", type=int, default=1024, metavar="PIXELS", help="Count costs at this square too.")
    parser.add_argument("--json", action="store_true", help="Print JSON.")
    return parser


def convert_parser() -> Parser:
    parser = Parser(description="Turn a checkpoint of the published code into a file of this library.")
    add = parser.add_argument
    arch_help = "Its architecture: l1,h3,d96,n1,s1,g1,p4,f7,a0_l2,..."
    add("checkpoint", type=str, metavar="CHECKPOINT", help="A .pth file of the published code.")
    add("--arch", required=True, type=str, metavar="STRING", help=arch_help)
    add("--output", required=True, type=str, metavar="PATH", help="A .safetensors file, or a folder in timm's layout.")
    add("--image-size", type=int, default=224, metavar="PIXELS", help="Side of the square it was trained at.")
    add("--windowed", action="store_true", help="Turn full attention into windowed, for any resolution.")
    add("--stretch-tables", action="store_true", help="With --windowed, stretch bias tables as the detection code did.")
    add("--class-names", type=str | None, metavar="FILE", help="One name a line, stored with the weights.")
    add("--report", type=str | None, metavar="FILE", help="Write what became of every entry as JSON.")
    published_help = "Published option, as those below; see vision_longformer.published.parse."
    add("--num-classes", type=int, default=1000, help=published_help)
    add("--norm-embed", type=bool, default=True, metavar="BOOL", help="Patch embeddings end in a LayerNorm.")
    add("--sharew", type=bool, default=True, metavar="BOOL", help="Global tokens share the projections of local ones.")
    add("--share-kv", type=bool, default=True, metavar="BOOL", help="Linformer projects keys and values alike.")
    add("--attn-type", type=str, default="longformerhand", metavar="NAME", help="Mechanism of stages with s1.")
    add("--sw-exact", type=int, default=0, metavar="N", help="0 chunks, 1 exact windows, -1 cyclic chunks.")
    add("--mode", type=int, default=0, metavar="N", help="0 all neighbours, -1 own chunk, above 0 random shift.")
    add("--only-glo", type=bool, default=False, metavar="BOOL", help="Local tokens see global tokens alone.")
    add("--avg-pool", type=bool, default=False, metavar="BOOL", help="Average tokens even with a global token.")
    return parser


def export_parser() -> Parser:
    parser = Parser(description="Write a model as an ONNX file, for ONNX Runtime, OpenVINO and others.")
    add = parser.add_argument
    add("model", type=str, metavar="CHECKPOINT|MODEL", help="Weights of this library, or a name of `vil models`.")
    add("--output", required=True, type=str, metavar="FILE", help="The .onnx file.")
    add("--size", default="224", type=str, metavar="SIZE", help="Pixels of images: 448, or HEIGHTxWIDTH.")
    add("--fixed", action="store_true", help="For one image of this size: traced faster, and cyclic windows need it.")
    add("--features", action="store_true", help="Give the map of each stage instead of the logits.")
    add("--seed", type=int, default=0, help="Draws the weights of an untrained model.")
    return parser


def compare_parser() -> Parser:
    parser = Parser(
        description="Measure attention mechanisms side by side: time, memory, multiply-adds, parameters by resolution."
    )
    add = parser.add_argument
    add("--size", nargs="+", type=int, default=[224, 448, 896, 1792], metavar="PIXELS", help="Sides of square images.")
    add("--model", default="small", type=str, metavar="NAME", help="As in the table of `vil models`.")
    add("--attention", nargs="+", type=str, default=[], metavar="NAME", help="By default all.")
    _add_measuring(parser, repeats=5, output="compare", file="comparison.json")
    add("--json", type=str | None, metavar="FILE", help="Write comparison.json here too.")
    return parser


def benchmark_parser() -> Parser:
    parser = Parser(
        description="Measure models side by side, ours and any of timm's: time, memory, share of the machine's peak."
    )
    add = parser.add_argument
    attention_help = "Measure these attention mechanisms in one of our models (small), as `vil compare` does."
    add("--models", nargs="+", type=str, metavar="NAME", help=f"Of `vil models`, or timm's: {' '.join(MODELS)}.")
    add("--attention", nargs="+", type=str, metavar="NAME", help=attention_help)
    add("--sizes", nargs="+", type=str, default=["448", "896"], metavar="SIZE", help="Pixels, or HEIGHTxWIDTH.")
    add("--training", action="store_true", help="Measure training steps too.")
    add("--batch", type=int, default=1, metavar="N", help="Images of a pass.")
    add("--runtimes", nargs="+", type=str, default=["eager"], metavar="NAME", help="eager, onnxruntime, openvino.")
    _add_measuring(parser, repeats=7, output="benchmark", file="benchmark.json")
    return parser


def plan_parser() -> Parser:
    parser = Parser(description="Say what encoding images will take of memory, disk and time, and which way it goes.")
    add = parser.add_argument
    add("images", nargs="*", type=str, metavar="IMAGE", help="Files, folders or patterns, as `vil encode` takes them.")
    add("--size", type=str | None, metavar="HEIGHTxWIDTH", help="Of an image that is not there yet, in pixels.")
    _add_model(parser)
    add("--max-pixels", type=int, default=MAX_PIXELS, metavar="N", help=PIXELS_HELP)
    _add_reading(parser)
    add("--memory", type=str | None, metavar="AMOUNT", help="That the process may take, such as 4GB.")
    add("--work-folder", type=str, default=".", metavar="DIR", help="Where maps would be spilled.")
    add("--training", action="store_true", help="Plan a training step: the largest batch, and how.")
    add("--json", action="store_true", help="Print JSON.")
    return parser


def train_parser() -> Parser:
    parser = Parser(description=f"Train a classifier, a detector or a segmentation model. {CONTINUATION}")
    add = parser.add_argument
    add("--recipe", type=str | None, metavar="FILE", help="YAML file with any of the options below.")
    add("--data", required=True, type=str, metavar="PATH", help="Folder with train and val, as the task has them.")
    add("--output", required=True, type=str, metavar="DIR", help="Folder of the run; created if need be.")
    _add_reading(parser, by_default="Short for --input.{}.")
    _add_recipe(parser, TrainConfig(), without=())
    return parser


def pretrain_parser() -> Parser:
    parser = Parser(
        description="Pretrain a model on images without labels: it learns to say of them what a trained classifier "
        f"says. {CONTINUATION}"
    )
    add = parser.add_argument
    add("--recipe", type=str | None, metavar="FILE", help="YAML file with any of the options below.")
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
    json_help = "Write the measures as JSON: top1 and top5 in percent, box_ap, mask_ap, miou and the like as fractions."
    size_help = "Side of a classifier's square, or shorter side that others see; by default that of training."
    add("checkpoint", type=str, metavar="CHECKPOINT", help="Weights, such as RUN/best.safetensors.")
    add("--data", required=True, type=str, metavar="PATH", help=data_help)
    add("--split", default="val", type=str, help="Which images.")
    add("--json", type=str | None, metavar="FILE", help=json_help)
    add("--size", type=int | None, metavar="PIXELS", help=size_help)
    add("--detections", type=int | None, metavar="N", help="Detectors: the most objects of an image; as in training.")
    add("--skip-invalid", action="store_true", help="Leave out annotations and images that cannot be used.")
    add("--batch-size", type=int | None, metavar="N", help="Images at once: 32 for a classifier, 1 for others.")
    add("--workers", type=int, default=2, metavar="N", help="Processes that read images.")
    add("--device", default="auto", type=str, help=DEVICE_HELP)
    add("--precision", choices=PRECISIONS, default="float32", help=PRECISION_HELP)
    _add_reading(parser)
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
    simplify_help = "Others: outlines with fewer vertices, moved by at most this; 0 keeps the edges of pixels."
    add("images", nargs="+", type=str, metavar="IMAGES", help="Files, folders (with all below them) or patterns.")
    add("--model", type=str | None, metavar="NAME", help=model_help)
    add("--checkpoint", type=str | None, metavar="FILE", help="Weights of your own; also as the first of IMAGES.")
    add("--output", type=str | None, metavar="PATH", help=output_help)
    add("--device", default="auto", type=str, help=DEVICE_HELP)
    add("--precision", choices=PRECISIONS, default="float32", help=f"{PRECISION_HELP} Streamed images: float32.")
    add("--top", type=int | None, metavar="N", help="Classifiers: how many classes to name (5).")
    add("--format", type=str | None, metavar="NAME", help="Classifiers: table, json or csv.")
    add("--size", type=int | None, metavar="PIXELS", help="Classifiers: side of the square; that of training.")
    add("--min-score", type=float | None, metavar="SCORE", help="Detectors: leave out less certain objects (0.5).")
    add("--classes", type=str, nargs="+", metavar="NAME", help="Detectors: keep these classes only.")
    add("--detections", type=int | None, metavar="N", help="Detectors: the most objects of an image; as in training.")
    add("--tile", type=int | None, metavar="PIXELS", help="Others: side of the tiles; as large as memory allows.")
    add("--overlap", type=int | None, metavar="PIXELS", help="Others: what tiles share; a quarter of their side.")
    add("--memory", type=str | None, metavar="SIZE", help="Others: bound on a pass, as 4GB; 60% of what is free.")
    add("--scale", type=float | None, metavar="FACTOR", help="Others: resize images by this; as in training.")
    add("--outputs", type=str, nargs="+", metavar="NAME", help=outputs_help)
    add("--simplify", type=float | None, metavar="PIXELS", help=simplify_help)
    add("--no-pictures", action="store_true", help="Others: neither pictures nor index.html, which is faster.")
    _add_reading(parser)
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
    add("--json", type=str | None, metavar="FILE", help="Write the figures as JSON.")
    return parser


def explore_parser() -> Parser:
    parser = Parser(
        description="Open a page over your own images, on this machine alone: see what is alike, segment by strokes."
    )
    add = parser.add_argument
    images_help = "Images, which are encoded first, or feature files of `vil encode`, best with all four stages."
    output_help = "Folder for features, strokes and what is taken away; created if need be."
    strokes_help = "File of strokes, kept by the contents of images; by default strokes.json below --output."
    add("images", nargs="+", type=str, metavar="IMAGE|FEATURES", help=images_help)
    add("--output", default="explored", type=str, metavar="DIR", help=output_help)
    add("--image", type=str | None, metavar="FILE", help="The image of a feature file, where it is not beside it.")
    add("--strokes", type=str | None, metavar="FILE", help=strokes_help)
    _add_model(parser)
    parser.set_defaults({"stages": [1, 2, 3, 4]})
    _add_reading(parser)
    memory_help = "That encoding may take, such as 4GB; by default what the process holds and 60% of what is free."
    add("--memory", type=str | None, metavar="AMOUNT", help=memory_help)
    add("--port", type=int, default=0, metavar="N", help="Of the page; 0 takes any that is free.")
    add("--no-browser", action="store_true", help="Print the address and open nothing.")
    return parser


def search_parser() -> Parser:
    parser = Parser(description="Find what in encoded images is most like an image, a region or a point.")
    add = parser.add_argument
    query_help = "An image: one of those that were encoded, by its name there, or any file."
    add("features", type=str, metavar="FEATURES", help="A folder that `vil encode` wrote; an index is kept in it.")
    add("query", type=str, metavar="QUERY", help=query_help)
    add("--stage", type=int | None, metavar="N", help="Look for regions, by the maps of this stage; else for images.")
    add("--point", nargs=2, type=int, metavar=("ROW", "COLUMN"), help="Of QUERY: what is like this place?")
    add("--box", nargs=4, type=int, metavar=("TOP", "LEFT", "BOTTOM", "RIGHT"), help="Of QUERY: what is like this?")
    add("--count", type=int, default=10, metavar="N", help="How many to find.")
    add("--each", type=int | None, metavar="N", help="How many of one image at most.")
    add("--checkpoint", type=str | None, metavar="FILE", help="Weights that the images were encoded with, for a file.")
    add("--images", type=str | None, metavar="DIR", help="The folder that was encoded, to show pictures.")
    add("--output", type=str | None, metavar="DIR", help="Write a page of what was found, DIR/index.html.")
    add("--json", type=str | None, metavar="FILE", help="Write what was found as JSON.")
    return parser


def clusters_parser() -> Parser:
    parser = Parser(description="Group encoded images that are alike, and draw a map of them.")
    add = parser.add_argument
    count_help = "How many clusters, by k-means; by default as many as HDBSCAN finds, and images that belong to none."
    layout_help = "Of the map: pca, tsne, which shows neighbours better and takes longer, or umap, if it is installed."
    add("features", type=str, metavar="FEATURES", help="A folder that `vil encode` wrote.")
    add("--output", required=True, type=str, metavar="DIR", help="Folder for index.html and clusters.csv.")
    add("--count", type=int | None, metavar="N", help=count_help)
    add("--smallest", type=int, default=5, metavar="N", help="The fewest images of a cluster that HDBSCAN finds.")
    add("--layout", choices=["pca", "tsne", "umap"], default="pca", help=layout_help)
    add("--images", type=str | None, metavar="DIR", help="The folder that was encoded, to show pictures.")
    return parser


def doctor_parser() -> Parser:
    parser = Parser(description="Say what this machine and this installation can do, and how to mend what is missing.")
    output_help = "Where results are to go: the disk to look at; by default that of this folder."
    parser.add_argument("--output", type=str | None, metavar="DIR", help=output_help)
    parser.add_argument("--json", action="store_true", help="Print JSON.")
    return parser


COMMANDS: dict[str, Callable[[], Parser]] = {
    "encode": encode_parser,
    "status": status_parser,
    "explore": explore_parser,
    "search": search_parser,
    "clusters": clusters_parser,
    "models": models_parser,
    "convert": convert_parser,
    "export": export_parser,
    "compare": compare_parser,
    "benchmark": benchmark_parser,
    "plan": plan_parser,
    "train": train_parser,
    "pretrain": pretrain_parser,
    "evaluate": evaluate_parser,
    "predict": predict_parser,
    "probe": probe_parser,
    "doctor": doctor_parser,
}


def _add_model(parser: Parser) -> None:
    """Add which model encodes, and where."""
    add = parser.add_argument
    add("--model", default="vision_longformer_nano", type=str, help="Name of a model; `vil models` lists them.")
    add("--checkpoint", type=str | None, metavar="FILE", help="Weights of this library, which say their model.")
    add("--stages", nargs="+", type=int, default=[4], metavar="N", help="Whose maps to keep, from 1.")
    add("--device", default="auto", type=str, help=DEVICE_HELP)
    add("--seed", type=int, default=0, help="Draws the weights of an untrained model, so that runs repeat.")


def _add_reading(parser: Parser, *, by_default: str = "By default as the weights were trained.") -> None:
    """Add how images are read.

    Args:
        parser: Of the command.
        by_default: What holds where an option is not given; "{}" is the name of its field.
    """
    add = parser.add_argument
    level_help = "Of the pyramid of a slide or TIFF; 0 is full resolution."
    channels_help = "Which channels to take, in this order, counted from 0."
    range_help = "Stored values that become 0 and 1, where their type does not say so: 0 4095 for 12 bits in 16."
    level_help, channels_help, range_help = (
        f"{text} {by_default.format(field)}"
        for text, field in ((level_help, "level"), (channels_help, "channels"), (range_help, "value_range"))
    )
    add("--level", type=int | None, metavar="N", help=level_help)
    add("--channels", nargs="+", type=int, metavar="N", help=channels_help)
    add("--value-range", nargs=2, type=float, metavar=("LOW", "HIGH"), help=range_help)


def _add_measuring(parser: Parser, *, repeats: int, output: str, file: str) -> None:
    """Add how models are measured, and where the result goes."""
    add = parser.add_argument
    add("--repeats", type=int, default=repeats, metavar="N", help="Timed turns; fewer of what took a minute.")
    add("--threads", type=int | None, metavar="N", help="To compute with; PyTorch's choice by default.")
    add("--memory", type=str | None, metavar="SIZE", help="Bound on a pass, as 8GB; 60% of what is free by default.")
    add("--time-limit", type=float, default=600.0, metavar="SECONDS", help="For each process that measures memory.")
    add("--output", default=output, type=str, metavar="DIR", help=f"Folder for index.html, PNGs and {file}.")


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
