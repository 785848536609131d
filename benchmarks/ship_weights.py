"""Put trained weights into the package: halved, listed with their digest.

    python benchmarks/ship_weights.py runs/pretraining/best.safetensors --name vision_longformer_nano \
        --tag distill_mixed --task classification --summary "ImageNet's 1,000 classes, ..."

The model card, src/vision_longformer/pretrained/NAME.md, is written by hand.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

from vision_longformer.pretrained import TABLE, Shipped
from vision_longformer.training.weight_files import load_weights
from vision_longformer.weights import halve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--tag")
    parser.add_argument("--task", required=True)
    parser.add_argument("--summary", required=True)
    options = parser.parse_args()
    entry = Shipped(options.name, "", options.task, options.summary, options.tag)
    halve(options.weights, entry.path)
    load_weights(entry.path)  # it can be read
    table = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else {}
    table[options.name] = {
        "sha256": hashlib.sha256(entry.path.read_bytes()).hexdigest(),
        "task": options.task,
        "summary": options.summary,
        "tag": options.tag,
    }
    TABLE.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    print(f"{entry.path}: {entry.path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
