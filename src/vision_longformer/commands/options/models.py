"""Options of the commands that list, convert, export and measure models."""

from __future__ import annotations

from vision_longformer.commands.common import Parser
from vision_longformer.commands.options.shared import add_json_file

SHELLS = ("bash", "zsh", "tcsh")
MODELS = (
    "vision_longformer_tiny",
    "vision_longformer_small",
    "swin_tiny_patch4_window7_224",
    "convnext_tiny",
    "resnet50",
)


def models_parser() -> Parser:
    parser = Parser(description="List the models with their sizes, costs and published accuracies.")
    parser.add_argument("--size", type=int, default=1024, metavar="PIXELS", help="Count costs at this square too.")
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
    add_json_file(parser, "comparison.json")
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


def completion_parser() -> Parser:
    parser = Parser(
        description='Print what makes a shell complete commands, options and files: eval "$(vil completion bash)".'
    )
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=f"One of {', '.join(SHELLS)}.")
    parser.has_result = False
    return parser


def _add_measuring(parser: Parser, *, repeats: int, output: str, file: str) -> None:
    """Add how models are measured, and where the result goes."""
    add = parser.add_argument
    add("--repeats", type=int, default=repeats, metavar="N", help="Timed turns; fewer of what took a minute.")
    add("--threads", type=int | None, metavar="N", help="To compute with; PyTorch's choice by default.")
    add("--memory", type=str | None, metavar="SIZE", help="Bound on a pass, as 8GB; 60% of what is free by default.")
    add("--time-limit", type=float, default=600.0, metavar="SECONDS", help="For each process that measures memory.")
    add("--output", default=output, type=str, metavar="DIR", help=f"Folder for index.html, PNGs and {file}.")
