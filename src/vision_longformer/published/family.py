"""The published family as a table: what each model costs and how well it was published to do."""

from __future__ import annotations

from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table

from vision_longformer.backbone import VisionLongformer
from vision_longformer.costs import multiply_adds
from vision_longformer.pretrained import backbones
from vision_longformer.variants import CONFIGS, PREFIX, list_models, variant_of

PUBLISHED_SIZE = 224
WITH_WEIGHTS = " •"


def describe_family(size: int) -> list[dict[str, Any]]:
    """Describe every model.

    Args:
        size: Side in pixels of the square image that costs are counted at, beside 224.

    Returns:
        For each of `list_models()`: "name", "parameters", "multiply_adds" (by side in pixels, as text), and the
        published ImageNet-1K accuracies in percent of its variant, "top1_absolute" and "top1_relative", None where
        there is none. "published_at" is the side in pixels of these. "weights" is the tag of weights that come with
        the package, None where there are none.
    """
    rows = []
    for name in list_models():
        with torch.device("meta"):
            model = VisionLongformer(CONFIGS[name])
        published = variant_of(name).published
        rows.append(
            {
                "name": name,
                "parameters": sum(parameter.numel() for parameter in model.parameters()),
                "multiply_adds": {
                    str(side): multiply_adds(CONFIGS[name], (side, side)) for side in (PUBLISHED_SIZE, size)
                },
                "top1_absolute": published and published.top1_absolute,
                "top1_relative": published and published.top1_relative,
                "published_at": published and published.image_size,
                "weights": backbones()[name].tag if name in backbones() else None,
            }
        )
    return rows


def family_table(rows: list[dict[str, Any]], size: int) -> Table:
    """Lay out what `describe_family(size)` returns, with one line for each variant."""
    table = Table(
        title="vision_longformer_NAME",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        caption=(
            "Parameters in millions; multiply-adds (MACs) in billions, for squares of so many pixels a side. NAME has "
            "relative positions and windowed attention in all stages; the form that was published, NAME_ape_full, "
            "has absolute positions and full attention in stages 3 and 4. Top-1 on ImageNet-1K in percent, as "
            "published with absolute (APE) and relative (RPE) positions; * at 384 pixels."
            f"{WITH_WEIGHTS}: comes with weights of this library's own (pretrained=True)."
        ),
        caption_justify="left",
        title_justify="left",
    )
    table.add_column("NAME", no_wrap=True)
    sides = (str(PUBLISHED_SIZE), str(size))
    costs = [f"{form}\nat {side}" for form in ("MACs", "_ape_full") for side in sides]
    for heading in ("params", *costs, "APE", "RPE"):
        table.add_column(heading, justify="right")
    by_name = {row["name"]: row for row in rows}
    for row in rows:
        form = by_name.get(f"{row['name']}_ape_full")
        if form is None:
            continue
        mark = "*" if row["published_at"] == 384 else ""
        accuracies = [
            "–" if row[key] is None else f"{row[key]:.2f}{mark}" for key in ("top1_absolute", "top1_relative")
        ]
        table.add_row(
            row["name"].removeprefix(PREFIX) + (WITH_WEIGHTS if row["weights"] else ""),
            f"{row['parameters'] / 1e6:.1f}",
            *(f"{which['multiply_adds'][side] / 1e9:,.1f}" for which in (row, form) for side in sides),
            *accuracies,
        )
    return table
