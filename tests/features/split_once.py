"""Run by test_split under torchrun: `vil encode --split`, whose second process dies once.

python -m features.split_once FOLDER
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import vil
from vision_longformer.features import split
from vision_longformer.streaming import stream


def main(folder: Path) -> int:
    """Encode `large.tif`, which lies in the folder."""
    first, mark = os.environ["RANK"] == "0", folder / "killed"
    shares = list[float]()

    def watched(*arguments: Any, progress: Any, **options: Any) -> Any:
        def see(state: Any) -> None:
            shares.append(state.fraction)
            if not first and state.fraction > 0.6 and not mark.exists():
                mark.write_text("")
                os.kill(os.getpid(), signal.SIGKILL)
            progress(state)

        return stream(*arguments, progress=see, **options)

    command = ["encode", str(folder / "large.tif"), "--output", str(folder / "out"), "--split", "--way", "spilled"]
    with mock.patch.object(split, "stream", watched):
        code = vil.main(command)
    if first:
        torch.save(shares[0], folder / "first-share.pt")
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
