"""Distillation: pretraining on images without labels, by what a classifier says of them.

The student learns to say of a view what the teacher says of it (Beyer et al., "Knowledge distillation: A good teacher
is patient and consistent", CVPR 2022). The teacher is asked about a few fixed views of each image, once, before
training; or about new ones at every step, where that is cheap.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset

from vision_longformer.backbone import VisionLongformer
from vision_longformer.datasets.folders import find_folder_images
from vision_longformer.datasets.packed import Batch, Numbers, PackedImages, images_of, pack_shard, shards_of
from vision_longformer.datasets.views import centre_boxes, draw_boxes, flip, jitter_colours, resample
from vision_longformer.evaluation.loop import EvaluationSetup, for_each_batch
from vision_longformer.images import AS_STORED
from vision_longformer.training.classifiers import build_model, preprocessing_of, save_weights, start_from
from vision_longformer.training.config import TrainConfig
from vision_longformer.training.distillation import (
    Agreement,
    Answers,
    LogitsAndFeatures,
    Student,
    features_loss,
    labels_loss,
    logits_loss,
)
from vision_longformer.training.sampler import Sampler
from vision_longformer.training.tasks.base import Preparation, Task
from vision_longformer.training.tasks.classification import Classifier
from vision_longformer.training.teachers import (
    Basis,
    KeptSaid,
    Said,
    Teacher,
    has_said,
    load_teacher,
    read_basis,
    write_basis,
    write_said,
)
from vision_longformer.utils.atomic_files import replacing
from vision_longformer.utils.checks import impossible
from vision_longformer.utils.distributed import Processes
from vision_longformer.utils.steps import Progress, Steps

MAX_VALIDATION = 2000  # images
BASIS_SHARDS = 8  # that the principal components are found on
TOGETHER = 128  # images that become views at once
_VIEWS = 7  # stream of the seed that fixed views are drawn from


class Distillation(Task):
    """Folders of images."""

    best = "agreement"
    trained = Classifier  # of the teacher's classes
    takes_several_folders = True

    def __init__(self, config: TrainConfig, data: Sequence[Path]) -> None:
        self.config, self.options = config, config.distillation
        if self.options.teacher is None:
            raise ValueError("distillation.teacher: name one, a model of timm or a file")
        self.folders = tuple(data)
        found = find_folder_images(self.folders, labelled=self.options.labels_weight > 0)
        self.paths, self.names, self.labels, self.folder_of_label = found
        self.teacher: Teacher = load_teacher(self.options.teacher, size=self.options.teacher_size)
        self.classes = self.teacher.classes
        self._labels, self._folder_of_label = torch.tensor(self.labels), torch.tensor(self.folder_of_label)
        self.training_images, self.validation_images = len(self.paths), 0  # until the images are decoded

    # --- preparation --------------------------------------------------------------------------------------------

    def prepare(self, where: Preparation) -> Steps[None]:
        device, processes = where.device, where.processes
        cache = Path(self.options.cache) if self.options.cache is not None else where.folder.path / "cache"
        cache.mkdir(parents=True, exist_ok=True)
        _claim(cache / "images.json", self._about_images(), processes, "other images, or images kept otherwise")
        for done, shard in self._rounds(processes):
            if shard is not None:
                pack_shard(
                    self.paths,
                    cache,
                    shard,
                    stored_side=self.options.stored_side,
                    max_pixels=self.config.input.max_pixels,
                    threads=self.config.compute.workers,
                    reading=self.config.input.reading,
                )
            yield Progress("images decoded", done, len(self.paths))
        processes.wait()
        self.images = PackedImages(cache, len(self.paths))
        self._split()
        self._draw_views()
        self.ask = self.teacher.runner(self.options.runtime, device, where.dtype)
        yield from self._ask_teacher(cache, where)
        if device.type != "cpu":
            self.images.keep_on(device)

    def _split(self) -> None:
        """Keep some images, by their names, for evaluation; leave out those that could not be read."""
        readable = np.flatnonzero(self.images.sides > 0)
        wanted = min(MAX_VALIDATION, max(1, round(len(readable) * self.options.validation_share)))
        if len(readable) <= wanted:
            raise ValueError(f"{self.folders[0]}: {len(readable)} images that can be read are too few")
        digests = [hashlib.sha256(self.names[index].encode("utf-8", "surrogateescape")).digest() for index in readable]
        kept = sorted(range(len(readable)), key=digests.__getitem__)[:wanted]
        is_kept = np.zeros(len(readable), bool)
        is_kept[kept] = True
        self.training, self.validation = readable[~is_kept], readable[is_kept]
        self.training_images, self.validation_images = len(self.training), len(self.validation)
        unreadable = self.images.unreadable
        if unreadable:
            more = f", and {len(unreadable) - 3} more" if len(unreadable) > 3 else ""
            self.remarks = [f"{len(unreadable)} images left out: {'; '.join(unreadable[:3])}{more}"]

    def _ask_teacher(self, cache: Path, where: Preparation) -> Steps[None]:
        """Find the basis of the teacher's features, and what it says of all fixed views."""
        device, processes = where.device, where.processes
        folder = cache / "teacher"
        folder.mkdir(exist_ok=True)
        _claim(folder / "teacher.json", self._about_teacher(), processes, "another teacher's answers, or other views")
        if read_basis(folder) is None:
            every = shards_of(len(self.paths))
            chosen = every[:: max(1, len(every) // BASIS_SHARDS)]
            features = []
            for number, shard in enumerate(chosen):
                if processes.is_first:
                    features.append(self._said_of(self._readable(shard), 0, device).features.cpu())
                yield Progress("shards whose features were looked at", number + 1, len(chosen))
            if processes.is_first:
                write_basis(folder, Basis.of(torch.cat(features), self.options.components))
        processes.wait()
        basis = read_basis(folder)
        assert basis is not None
        self.basis = basis
        if not self.options.views:
            return
        for done, own in self._rounds(processes):
            if own is not None and not has_said(folder, own):
                images = images_of(own, len(self.paths))
                said = [self._said_of_shard(images, v, device) for v in range(self.options.views)]
                write_said(folder, own, said)
            yield Progress("images seen by the teacher", done, len(self.paths))
        processes.wait()
        self.said = KeptSaid(folder, len(shards_of(len(self.paths))))

    def _rounds(self, processes: Processes) -> Iterator[tuple[int, int | None]]:
        """Yield how many images will be done, and this process's next shard: as often in every process."""
        count = len(shards_of(len(self.paths)))
        for first in range(0, count, processes.count):
            shard = first + processes.rank
            done = images_of(min(first + processes.count, count) - 1, len(self.paths)).stop
            yield done, shard if shard < count else None

    def _said_of_shard(self, images: range, view: int, device: torch.device) -> Said:
        """Return what the teacher says of a view of every image of a shard; zeros for those that cannot be read."""
        readable = [image for image in images if self.images.sides[image] > 0]
        logits = torch.zeros(len(images), len(self.classes), dtype=torch.float32)
        features = torch.zeros(len(images), self.basis.components.shape[1], dtype=torch.float32)
        if readable:
            said = self._said_of(readable, view, device)
            places = torch.tensor(readable) - images.start
            logits[places], features[places] = said.logits.cpu(), self.basis(said.features).cpu()
        return Said(logits, features)

    def _said_of(self, images: Sequence[int], view: int, device: torch.device) -> Said:
        parts = [images[first : first + TOGETHER] for first in range(0, len(images), TOGETHER)]
        said = [self.ask(self._views(part, [view] * len(part), self.teacher.size, device)) for part in parts]
        return Said(*(torch.cat(kind) for kind in zip(*said, strict=True)))

    def _readable(self, shard: int) -> list[int]:
        return [image for image in images_of(shard, len(self.paths)) if self.images.sides[image] > 0]

    def _about_images(self) -> dict[str, Any]:
        lines = "".join(f"{name}\t{path.stat().st_size}\n" for name, path in zip(self.names, self.paths, strict=True))
        digest = hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()
        about = {"images": len(self.paths), "digest": digest, "stored_side": self.options.stored_side}
        reading = self.config.input.reading
        return about if reading == AS_STORED else about | {"reading": reading.to_dict()}

    def _about_teacher(self) -> dict[str, Any]:
        augmentation = self.config.augmentation
        return {
            "teacher": self.teacher.digest(),
            "size": self.teacher.size,
            "runtime": self.options.runtime,
            "components": self.options.components,
            "views": self.options.views,
            "seed": self.config.seed,
            "crop_scale": list(augmentation.crop_scale),
            "crop_ratio": list(augmentation.crop_ratio),
        }

    # --- views --------------------------------------------------------------------------------------------------

    def _draw_views(self) -> None:
        """Draw the fixed views of all images: the first is the centre of the image, the others are random."""
        count = len(self.paths)
        boxes = [centre_boxes(self.images.aspects)]
        for view in range(1, self.options.views):
            randoms = np.random.default_rng([self.config.seed, _VIEWS, view]).random((count, 4))
            boxes.append(self._random_boxes(randoms, self.images.aspects))
        self._boxes = np.stack(boxes)  # (V, N, 4)

    def _random_boxes(self, randoms: NDArray[np.float64], aspects: NDArray[np.float32]) -> NDArray[np.float32]:
        augmentation = self.config.augmentation
        return draw_boxes(randoms, aspects, scale=augmentation.crop_scale, ratio=augmentation.crop_ratio)

    def _views(self, images: Sequence[int], views: Sequence[int], size: int, device: torch.device) -> Tensor:
        """Return a fixed view of each image, as (n, 3, size, size) in [0, 1]."""
        return self._cut(images, self._boxes[views, images], size, device)

    def _cut(self, images: Sequence[int], boxes: NDArray[np.float32], size: int, device: torch.device) -> Tensor:
        all_boxes = torch.from_numpy(boxes).to(device)
        views = torch.zeros(len(images), 3, size, size, dtype=torch.float32, device=device)
        with torch.autocast(device.type, enabled=False):
            for places, squares in self.images.gather(images, device):
                views[places] = resample(squares, all_boxes[places], size)
        return views

    def _normalised(self, views: Tensor, model: nn.Module) -> Tensor:
        preprocessing = preprocessing_of(model, self.config.input)
        mean, std = (views.new_tensor(preprocessing[name])[:, None, None] for name in ("mean", "std"))
        return (views - mean) / std

    # --- training -----------------------------------------------------------------------------------------------

    def check(self) -> Steps[None]:
        """Nothing: every image was decoded in preparation, and those that cannot be read were left out."""
        yield from ()

    def files(self, indices: Sequence[int]) -> list[str]:
        return [str(self.paths[index]) for index in indices]

    def digest(self) -> str:
        digest = hashlib.sha256(json.dumps([self._about_images(), self._about_teacher()]).encode())
        digest.update(np.asarray(self.labels).tobytes())
        return digest.hexdigest()

    def order(self, processes: Processes) -> Sampler:
        return Sampler.of(self.config, samples=len(self.training), processes=processes)

    def build_model(self) -> nn.Module:
        backbone = build_model(self.config.model, num_classes=len(self.classes), size=self.config.input.size)
        if self.options.mosaic_share:
            self._check_mosaics(backbone)
        return Student(backbone, components=self.basis.components.shape[1], labels=len(self.folder_of_label))

    def _check_mosaics(self, backbone: nn.Module) -> None:
        """Make sure that the map of a mosaic can be taken apart.

        Raises:
            ValueError: It cannot.
        """
        if not isinstance(backbone, VisionLongformer) or backbone.config.stages[-1].num_global_tokens:
            rule = "only for models of this library whose last stage has no global tokens"
            raise impossible("distillation.mosaic_share", self.options.mosaic_share, rule)
        if any(side % (stride := backbone.config.strides[-1]) for side in self.options.mosaic_sides):
            rule = f"must be multiples of {stride}, the model's largest stride"
            raise impossible("distillation.mosaic_sides", self.options.mosaic_sides, rule)

    def start_from(self, model: nn.Module, checkpoint: str) -> list[str]:
        assert isinstance(model, Student)
        return start_from(model.backbone, checkpoint, classes=self.classes)

    def training_data(self, model: nn.Module) -> Dataset[Any]:
        return Numbers(self.training)

    def losses(self, model: nn.Module, batch: Batch, device: torch.device) -> dict[str, Tensor]:
        options = self.options
        mosaic = self._draw_mosaic(batch)
        size = self._draw_side(batch) if mosaic == 1 else _one_of(options.mosaic_sides)
        if options.views:
            seen = [(image + epoch) % options.views for image, epoch in zip(batch.indices, batch.epochs, strict=True)]
            views = self._views(batch.indices, seen, size, device)
            said = self.said.gather(batch.indices, seen, device)
        else:
            views, said = self._ask_now(batch, size, device)
        augmentation = self.config.augmentation  # which the teacher does not see
        views = flip(views, augmentation.horizontal_flip)
        views = jitter_colours(views, augmentation.color_jitter)
        answers: Answers = model(self._normalised(views, backbone_of(model)), mosaic)
        found = {
            "logits": options.logits_weight * logits_loss(answers.logits, said.logits, temperature=options.temperature),
            "features": options.features_weight * features_loss(answers.features, said.features),
        }
        if answers.labels is not None:
            labels, folders = self._labels[batch.indices].to(device), self._folder_of_label.to(device)
            found["labels"] = options.labels_weight * labels_loss(answers.labels, labels, folders)
        return {name: losses.sum() for name, losses in found.items()}

    def _draw_mosaic(self, batch: Batch) -> int:
        """Draw how many images lie on a side of a mosaic; 1 is none. The generator was seeded for the step."""
        if not self.options.mosaic_share or float(torch.rand(())) >= self.options.mosaic_share:
            return 1
        mosaic = _one_of(self.options.mosaics)
        return 1 if len(batch.indices) % mosaic**2 else mosaic

    def _draw_side(self, batch: Batch) -> int:
        """Draw the side of a batch."""
        epochs = self.config.schedule.epochs
        is_final = batch.epochs[0] >= epochs - round(self.options.final_share * epochs)
        return _one_of(self.options.final_sides if is_final else self.options.sides)

    def _ask_now(self, batch: Batch, size: int, device: torch.device) -> tuple[Tensor, Said]:
        """Draw new views, and ask the teacher about them."""
        count = len(batch.indices)
        randoms = torch.rand(count, 4).double().numpy()
        boxes = self._random_boxes(randoms, self.images.aspects[batch.indices])
        views = self._cut(batch.indices, boxes, size, device)
        shown = self._cut(batch.indices, boxes, self.teacher.size, device)
        said = self.ask(shown)
        return views, Said(said.logits, self.basis(said.features))

    # --- evaluation ---------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def evaluate(self, model: nn.Module, how: EvaluationSetup) -> Agreement | None:
        backbone: Any = backbone_of(model).eval()
        pair = LogitsAndFeatures(backbone)
        count = len(self.validation)
        place = {int(image): number for number, image in enumerate(self.validation)}
        teacher, student = torch.zeros(count, dtype=torch.long), torch.zeros(count, dtype=torch.long)
        divergence = torch.zeros(count, dtype=torch.float32)
        features = torch.zeros(count, backbone.num_features, dtype=torch.float32)

        def take(batch: Batch) -> None:
            first = [0] * len(batch.indices)
            views = self._views(batch.indices, first, self.config.input.size, how.device)
            with how.autocast():
                logits, pooled = pair(self._normalised(views, backbone))
            if self.options.views:
                said = self.said.gather(batch.indices, first, how.device)
            else:
                said = self.ask(self._views(batch.indices, first, self.teacher.size, how.device))
            places = torch.tensor([place[image] for image in batch.indices])
            teacher[places], student[places] = said.logits.argmax(1).cpu(), logits.argmax(1).cpu()
            divergence[places] = logits_loss(logits, said.logits, temperature=1.0).cpu()
            features[places] = pooled.float().cpu()

        if not for_each_batch(Numbers(self.validation), how, take):
            return None
        found = (teacher, student, divergence, features)
        teacher, student, divergence, features = (how.processes.sum(one.to(how.device)).cpu() for one in found)
        images = torch.from_numpy(self.validation)
        return Agreement(images, teacher, student, divergence, features, self.classes, self.picture)

    # --- files --------------------------------------------------------------------------------------------------

    def save_weights(self, model: nn.Module, path: Path) -> None:
        backbone = backbone_of(model)
        save_weights(backbone, path, options=self.config.model, inputs=self.config.input, classes=self.classes)

    def picture(self, image: int) -> Image.Image:
        """Return an image as it is kept, in its own shape."""
        ((_, squares),) = self.images.gather([image], torch.device("cpu"))
        aspect, side = float(self.images.aspects[image]), squares.shape[-1]
        square = Image.fromarray(squares[0].permute(1, 2, 0).numpy())
        shape = (side, round(side / aspect)) if aspect > 1 else (round(side * aspect), side)
        return square.resize(shape, Image.Resampling.BICUBIC)


def _one_of(numbers: Sequence[int]) -> int:
    """Draw one of some numbers."""
    return numbers[int(torch.randint(len(numbers), ()))]


def backbone_of(model: nn.Module) -> nn.Module:
    """Return the model that is kept: a student's backbone, or what was loaded as one."""
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    return inner.backbone if isinstance(inner, Student) else inner


def _claim(path: Path, about: dict[str, Any], processes: Processes, other: str) -> None:
    """Make sure that a cache is of this run; a new one is marked as such.

    Raises:
        ValueError: It holds something else.
    """
    if path.exists():
        if json.loads(path.read_text(encoding="utf-8")) != about:
            raise ValueError(f"{path.parent}: holds {other}; give another distillation.cache, or remove it")
    elif processes.is_first:
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(about), encoding="utf-8")
    processes.wait()
