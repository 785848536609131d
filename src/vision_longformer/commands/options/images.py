"""Options of the commands that work on images and on their features."""

from __future__ import annotations

from vision_longformer.commands.common import Parser
from vision_longformer.commands.options.shared import (
    DEVICE_HELP,
    add_engine,
    add_json_file,
    add_model,
    add_precision,
    add_reading,
)

FORMATS = ("auto", "safetensors", "zarr", "geotiff", "parquet")
WAYS = ("auto", "whole", "streamed", "spilled")
MAX_PIXELS = 500_000_000
MAX_SIDE_HELP = "Shrink larger images; by default none are."
PIXELS_HELP = "Refuse images with more pixels that are decoded whole."
FORMAT_HELP = (
    "safetensors: a file; zarr: a folder of compressed chunks, with pictures for viewers; geotiff: a folder of "
    "rasters, for images that say where on earth they lie; auto: safetensors, or zarr where maps are spilled; parquet: "
    "embeddings alone, many in a file."
)
WAY_HELP = (
    "whole: all at once; streamed: band by band, with maps in memory; spilled: with maps in files, from which the same "
    "command goes on after a stop; auto: the first of these that fits."
)


def encode_parser() -> Parser:
    parser = Parser(description="Turn images into feature files, and a report to look at.")
    add = parser.add_argument
    images_help = "Files, folders (with all below them) or patterns; or URLs of these (s3://, https:// and others)."
    add("images", nargs="+", type=str, metavar="IMAGES", help=images_help)
    add("--output", required=True, type=str, metavar="DIR", help="Folder, or its URL, for the features.")
    add_model(parser)
    add_precision(parser, streams=True)
    add("--dtype", choices=["float16", "float32"], default="float16", help="Of stored features.")
    add("--format", choices=FORMATS, default="auto", help=FORMAT_HELP)
    add("--max-side", type=int | None, metavar="PIXELS", help=MAX_SIDE_HELP)
    add("--max-pixels", type=int, default=MAX_PIXELS, metavar="N", help=PIXELS_HELP)
    add_reading(parser)
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
    add_engine(parser)
    split_help = "Share each image between the processes that torchrun starts, as strips of rows; features are Zarr."
    add("--split", action="store_true", help=split_help)
    add("--no-report", action="store_true", help="Do not write DIR/index.html.")
    return parser


def status_parser() -> Parser:
    parser = Parser(description="Tell how many images `vil encode` has done, which failed and why, and what is left.")
    parser.add_argument("folder", type=str, metavar="DIR", help="The --output of vil encode.")
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
    add_model(parser)
    parser.set_defaults({"stages": [1, 2, 3, 4]})
    add_reading(parser)
    memory_help = "That encoding may take, such as 4GB; by default what the process holds and 60% of what is free."
    add("--memory", type=str | None, metavar="AMOUNT", help=memory_help)
    _add_page(parser)
    return parser


def demo_parser() -> Parser:
    parser = Parser(
        description="A first look: micrographs that come with the package are counted, and a page opens on them."
    )
    output_help = "Folder for features, strokes and what is taken away; created if need be."
    parser.add_argument("--output", default="demo", type=str, metavar="DIR", help=output_help)
    parser.add_argument("--device", default="auto", type=str, help=DEVICE_HELP)
    _add_page(parser)
    return parser


def _add_page(parser: Parser) -> None:
    """Add where a page is served."""
    add = parser.add_argument
    add("--port", type=int, default=0, metavar="N", help="Of the page; 0 takes any that is free.")
    add("--no-browser", action="store_true", help="Print the address and open nothing.")
    parser.has_result = False


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
    add_json_file(parser, "what was found")
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


def plan_parser() -> Parser:
    parser = Parser(
        description="Say what encoding images will take of memory, disk and time, and which way it goes; with "
        "--checkpoint of a detector or a segmentation model, what predicting takes."
    )
    add = parser.add_argument
    add("images", nargs="*", type=str, metavar="IMAGE", help="Files, folders or patterns, as `vil encode` takes them.")
    add("--size", type=str | None, metavar="HEIGHTxWIDTH", help="Of an image that is not there yet, in pixels.")
    add_model(parser)
    add("--max-side", type=int | None, metavar="PIXELS", help=MAX_SIDE_HELP)
    add("--max-pixels", type=int, default=MAX_PIXELS, metavar="N", help=PIXELS_HELP)
    add_reading(parser)
    add("--memory", type=str | None, metavar="AMOUNT", help="That the process may take, such as 4GB.")
    add("--work-folder", type=str, default=".", metavar="DIR", help="Where maps would be spilled.")
    add("--training", action="store_true", help="Plan a training step: the largest batch, and how.")
    return parser


def doctor_parser() -> Parser:
    parser = Parser(description="Say what this machine and this installation can do, and how to mend what is missing.")
    output_help = "Where results are to go: the disk to look at; by default that of this folder."
    parser.add_argument("--output", type=str | None, metavar="DIR", help=output_help)
    return parser
