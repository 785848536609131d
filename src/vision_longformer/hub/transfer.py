"""Folders of a model, its configuration and its card: written, read, and exchanged with the Hugging Face Hub.

The layout is timm's, see `weights.timm_folder`. Folders need no network.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download

from vision_longformer.backbone import VisionLongformer
from vision_longformer.hub.model_card import model_card
from vision_longformer.pretrained import find_weights, shipped
from vision_longformer.utils.atomic_files import replacing
from vision_longformer.utils.version import __version__
from vision_longformer.weights import CONFIG_NAME, WEIGHTS_NAME, load, save

logger = logging.getLogger(__name__)
CARD_NAME = "README.md"
SOURCES = ("hf-hub:", "local-dir:")  # as timm has them before names


def write(
    model: VisionLongformer,
    folder: str | Path,
    *,
    class_names: Sequence[str] | None = None,
    license: str | None = None,
    description: str = "",
    name: str | None = None,
) -> Path:
    """Do what `VisionLongformer.save_pretrained` says.

    Args:
        name: Of the model in its card; by default that of the folder.
    """
    folder = Path(folder)
    weights = save(model, folder, class_names=class_names)
    if not (folder / CARD_NAME).exists():
        name = name or folder.resolve().name
        card = model_card(model, name, class_names=class_names, license=license, description=description)
        with replacing(folder / CARD_NAME) as temporary:
            temporary.write_text(card, encoding="utf-8")
    return weights


def read(source: str | Path, *, revision: str | None = None, **download: Any) -> VisionLongformer:
    """Do what `VisionLongformer.from_pretrained` says."""
    named = str(source)
    for prefix in SOURCES:
        named = named.removeprefix(prefix)
    if Path(named).exists() or named in shipped():
        return load(find_weights(named))
    if str(source).startswith("local-dir:") or named.count("/") != 1:  # a name of the hub is OWNER/NAME
        raise FileNotFoundError(f"{source}: no such folder, and no name of a model on the hub, which is OWNER/NAME")
    repository, _, commit = named.partition("@")
    logger.info("%s: asking the hub", repository)
    return load(
        snapshot_download(
            repository, revision=revision or commit or None, allow_patterns=[CONFIG_NAME, WEIGHTS_NAME], **download
        )
    )


def push(
    model: VisionLongformer,
    repo_id: str,
    *,
    class_names: Sequence[str] | None = None,
    license: str | None = None,
    description: str = "",
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    commit_message: str = "Add model",
    create_pr: bool = False,
) -> str:
    """Do what `VisionLongformer.push_to_hub` says."""
    api = HfApi(token=token, library_name="vision-longformer", library_version=__version__)
    with tempfile.TemporaryDirectory() as folder:
        name = repo_id.rpartition("/")[2]
        write(model, folder, class_names=class_names, license=license, description=description, name=name)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        has_card = api.file_exists(repo_id, CARD_NAME, revision=revision)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            revision=revision,
            commit_message=commit_message,
            create_pr=create_pr,
            ignore_patterns=[CARD_NAME] if has_card else None,
        )
    return str(commit)
