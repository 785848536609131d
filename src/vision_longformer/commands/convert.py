"""`vil convert`: checkpoints of the published code."""

from __future__ import annotations

import dataclasses

from vision_longformer.commands.common import Arguments, Parser, tell
from vision_longformer.published.convert import convert_file
from vision_longformer.published.parse import ReferenceOptions


def arguments() -> Parser:
    parser = Parser(description="Turn a checkpoint of the published code into a file of this library.")
    add = parser.add_argument
    add("checkpoint", type=str, metavar="CHECKPOINT", help="A .pth file of the published code.")
    add(
        "--arch", required=True, type=str, metavar="STRING", help="Its architecture: l1,h3,d96,n1,s1,g1,p4,f7,a0_l2,..."
    )
    add("--output", required=True, type=str, metavar="PATH", help="A .safetensors file, or a folder in timm's layout.")
    add("--image-size", type=int, default=224, metavar="PIXELS", help="Side of the square it was trained at.")
    add("--windowed", action="store_true", help="Turn full attention into windowed, for any resolution.")
    add("--stretch-tables", action="store_true", help="With --windowed, stretch bias tables as the detection code did.")
    add("--class-names", type=str | None, metavar="FILE", help="One name a line, stored with the weights.")
    add("--report", type=str | None, metavar="FILE", help="Write what became of every entry as JSON.")
    add(
        "--num-classes",
        type=int,
        default=1000,
        help="Published option, as those below; see vision_longformer.published.parse.",
    )
    add("--norm-embed", type=bool, default=True, metavar="BOOL", help="Patch embeddings end in a LayerNorm.")
    add("--sharew", type=bool, default=True, metavar="BOOL", help="Global tokens share the projections of local ones.")
    add("--share-kv", type=bool, default=True, metavar="BOOL", help="Linformer projects keys and values alike.")
    add("--attn-type", type=str, default="longformerhand", metavar="NAME", help="Mechanism of stages with s1.")
    add("--sw-exact", type=int, default=0, metavar="N", help="0 chunks, 1 exact windows, -1 cyclic chunks.")
    add("--mode", type=int, default=0, metavar="N", help="0 all neighbours, -1 own chunk, above 0 random shift.")
    add("--only-glo", type=bool, default=False, metavar="BOOL", help="Local tokens see global tokens alone.")
    add("--avg-pool", type=bool, default=False, metavar="BOOL", help="Average tokens even with a global token.")
    return parser


def run(arguments: Arguments) -> int:
    published = {field.name: arguments[field.name] for field in dataclasses.fields(ReferenceOptions)}
    try:
        weights, report = convert_file(
            arguments.checkpoint,
            arguments.output,
            arch=arguments.arch,
            image_size=arguments.image_size,
            options=ReferenceOptions(**published),
            windowed=arguments.windowed,
            stretch_tables=arguments.stretch_tables,
            class_names=arguments.class_names,
            report_file=arguments.report,
        )
    except (OSError, ValueError) as error:
        tell(str(error))
        return 1
    print(f"{weights}: {report.summary()}")
    return 0
