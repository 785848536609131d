"""How many photographs of ImageNet a classifier of its 1,000 classes names right.

python benchmarks/imagenet_names.py WEIGHTS --data imagenet_sample [--size 160]

WEIGHTS is a file, or the name of weights of the package. The data are DIR/val/WORDNET_ID/ with all 1,000 ids, whose
order is that of the classes; `pretraining_data.py` lays out a sample with one photograph of each.
"""

from __future__ import annotations

import argparse

import torch

from vision_longformer.datasets.classification import read_split
from vision_longformer.evaluation.classification import evaluate
from vision_longformer.evaluation.loop import EvaluationSetup
from vision_longformer.pretrained import find_weights
from vision_longformer.training.tasks.classification import Classifier
from vision_longformer.training.weight_files import load_weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights")
    parser.add_argument("--data", required=True)
    parser.add_argument("--size", type=int, default=160)
    options = parser.parse_args()
    trained = load_weights(find_weights(options.weights)).at_size(options.size)
    assert isinstance(trained, Classifier)
    samples = read_split(options.data, "val")
    assert len(samples.classes) == trained.model.num_classes
    how = EvaluationSetup(batch_size=50, workers=0, device=torch.device("cpu"))
    result = evaluate(trained.model, samples, trained.transform(), how)
    assert result is not None
    print(f"{len(samples)} photographs, {options.size} pixels:", result.metrics())


if __name__ == "__main__":
    main()
