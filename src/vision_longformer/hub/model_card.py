"""Model cards: what the weights in a folder are, and how to use them."""

from __future__ import annotations

from collections.abc import Sequence

from huggingface_hub import ModelCardData

from vision_longformer.backbone import VisionLongformer
from vision_longformer.config import ModelConfig
from vision_longformer.costs import multiply_adds
from vision_longformer.weights import pretrained_cfg_of

PAPER = "https://arxiv.org/abs/2103.15358"
UNSAID = "What the weights were trained on, and how well they do, was not written down when they were saved."
SHOWN_CLASSES = 20

BODY = """# {name}

{description}

## Model

| | |
|---|---|
| architecture | Multi-Scale Vision Longformer, `{architecture}` |
| stages, blocks × width | {stages} |
| attention | {attention} |
| parameters | {parameters:.1f} M |
| multiply-adds | {multiply_adds:.2f} G for one image of {height} × {width} |
| input | {in_chans} channels, images of any size; less mean {mean}, over deviation {std}, of values from 0 to 1 |
| output | {output} |

## Use

`pip install vision-longformer timm`, then, with `OWNER` for whom it belongs to:

```python
from vision_longformer import VisionLongformer

model = VisionLongformer.from_pretrained("OWNER/{name}")  # or a folder
```

```python
import timm
import vision_longformer  # registers the models

model = timm.create_model("hf-hub:OWNER/{name}", pretrained=True)  # or "local-dir:FOLDER"
backbone = timm.create_model("hf-hub:OWNER/{name}", pretrained=True, features_only=True)
```

## Source

```bibtex
@inproceedings{{zhang2021multi,
  title     = {{Multi-Scale Vision Longformer: A New Vision Transformer for High-Resolution Image Encoding}},
  author    = {{Zhang, Pengchuan and Dai, Xiyang and Yang, Jianwei and Xiao, Bin and Yuan, Lu and Zhang, Lei
               and Gao, Jianfeng}},
  booktitle = {{Proceedings of the IEEE/CVF International Conference on Computer Vision (ICCV)}},
  pages     = {{2998--3008}},
  year      = {{2021}}
}}
```
"""


def model_card(
    model: VisionLongformer,
    name: str,
    *,
    class_names: Sequence[str] | None = None,
    license: str | None = None,
    description: str = "",
) -> str:
    """Return a model's card as the hub has them: a header in YAML, then Markdown.

    Args:
        model: The model.
        name: Of the model.
        class_names: One for each class; by default the model's own, if it has any.
        license: Of the weights, as the hub names licences, such as "mit"; none is stated by default.
        description: What the weights were trained on, for what, and how well they do, in Markdown.
    """
    said, config = pretrained_cfg_of(model), model.config
    task = "image-classification" if config.num_classes else "image-feature-extraction"
    header = ModelCardData(
        library_name="timm",
        pipeline_tag=task,
        tags=["vision-longformer", "timm", "transformers", task, PAPER.replace("https://arxiv.org/abs/", "arxiv:")],
        license=license,
    )
    body = BODY.format(
        name=name,
        description=description.strip() or UNSAID,
        architecture=said.get("architecture") or "of its own configuration",
        stages=", ".join(f"{stage.depth}×{stage.width}" for stage in config.stages),
        attention=_attention(config),
        parameters=sum(parameter.numel() for parameter in model.parameters()) / 1e6,
        multiply_adds=multiply_adds(config, config.image_size) / 1e9,
        height=config.image_size[0],
        width=config.image_size[1],
        in_chans=config.in_chans,
        mean=_numbers(said["mean"]),
        std=_numbers(said["std"]),
        output=_output(config, class_names or said.get("label_names")),
    )
    return f"---\n{header.to_yaml()}\n---\n\n{body}"


def _attention(config: ModelConfig) -> str:
    """Say which attention the stages have, and how tokens know where they are."""
    kinds = [f"{type(stage.attention).__name__.lower()}, {stage.position} positions" for stage in config.stages]
    if len(set(kinds)) == 1:
        return f"{kinds[0]}, in all stages"
    return "; ".join(f"stage {number}: {kind}" for number, kind in enumerate(kinds, start=1))


def _output(config: ModelConfig, names: Sequence[str] | None) -> str:
    if not config.num_classes:
        return f"{config.stages[-1].width} features"
    listed = ", ".join(name.replace("|", r"\|") for name in (names or [])[:SHOWN_CLASSES])
    more = ", …" if len(names or []) > SHOWN_CLASSES else ""
    return f"{config.num_classes} classes" + (f": {listed}{more}" if listed else "")


def _numbers(values: tuple[float, ...] | list[float]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"
