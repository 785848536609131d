"""What people who know transformers and huggingface_hub call on a model to store it, to share it and to get it.

The work is done in `hub`, which knows of weights and builds models. It lies above, so it hands its functions down.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self, cast

from torch import nn

_functions: dict[str, Callable[..., Any]] = {}


def provide(**functions: Callable[..., Any]) -> None:
    """Say what the methods call: `write`, `read` and `push`."""
    _functions.update(functions)


class HubInterface(nn.Module):
    """A mixin for a model that can be stored in a folder and on the Hugging Face Hub, in timm's layout."""

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        class_names: Sequence[str] | None = None,
        license: str | None = None,
        description: str = "",
    ) -> Path:
        """Write the model into a folder, from which timm and transformers read it too.

        `model.safetensors` and `config.json` are those of `save`. `README.md` is a model card, and left as it is where
        there is one.

        Args:
            save_directory: The folder.
            class_names: One for each class; by default the model's own, if it has any.
            license: Of the weights, as the hub names licences, such as "mit"; none is stated by default.
            description: For the card: what the weights were trained on, for what, and how well they do, in Markdown.

        Returns:
            The weight file.

        Raises:
            ValueError: The number of class names is not that of the classes, or the model was pruned.
        """
        options: dict[str, Any] = {"class_names": class_names, "license": license, "description": description}
        return cast(Path, _functions["write"](self, save_directory, **options))

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
    ) -> Self:
        """Read a model, in evaluation mode: of a folder, a file, the package or the Hugging Face Hub.

        Args:
            pretrained_model_name_or_path: A folder or a weight file of this library; a folder that timm wrote of one of
                our models; the name of weights that come with the package; or, on the hub, OWNER/NAME. timm's form
                with "hf-hub:" or "local-dir:" before it, and with "@REVISION" after it, is understood.
            revision: A branch, tag or commit of the hub.
            token: For private models; by default the one that `hf auth login` stored.
            cache_dir: Where downloads are kept.
            force_download: Download what is there already.
            local_files_only: Do not ask the hub.

        Raises:
            FileNotFoundError: There is no such folder, and it is no name of the hub.
            OSError: The hub has no such model, or cannot be reached.
            ValueError: It is none of our models, its parts do not fit together, or it is damaged.
        """
        return cast(
            Self,
            _functions["read"](
                pretrained_model_name_or_path,
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
            ),
        )

    def push_to_hub(
        self,
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
        """Upload what `save_pretrained` writes to the Hugging Face Hub; a card that is there stays.

        Args:
            repo_id: OWNER/NAME; made if it does not exist.
            class_names: As for `save_pretrained`.
            license: As for `save_pretrained`.
            description: As for `save_pretrained`.
            private: Whether a repository that is made is private; None as the owner has it.
            token: By default the one that `hf auth login` stored.
            revision: The branch.
            commit_message: Of the upload.
            create_pr: Propose it rather than do it.

        Returns:
            The address of the commit.

        Raises:
            OSError: The hub cannot be reached, or does not allow it.
        """
        address = _functions["push"](
            self,
            repo_id,
            class_names=class_names,
            license=license,
            description=description,
            private=private,
            token=token,
            revision=revision,
            commit_message=commit_message,
            create_pr=create_pr,
        )
        return cast(str, address)
