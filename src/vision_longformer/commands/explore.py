"""`vil explore`: a page over one's own images, on this machine alone."""

from __future__ import annotations

import contextlib
import functools
import socket
import webbrowser
from pathlib import Path
from typing import Any

from vision_longformer.backbone import VisionLongformer
from vision_longformer.commands.common import Arguments, UsageError
from vision_longformer.commands.encode import UNTRAINED, chosen_model
from vision_longformer.commands.reading import chosen_reading
from vision_longformer.commands.terminal import say, tell, warn
from vision_longformer.explore.head import require_explore
from vision_longformer.explore.opened import OpenedImage, check_same_backbone, close_all, open_features, open_image
from vision_longformer.explore.session import Session
from vision_longformer.explore.strokes import Project
from vision_longformer.features.descriptions import read_metadata
from vision_longformer.features.encoder import Encoder
from vision_longformer.features.strategies import Limits
from vision_longformer.pretrained import backbones, shipped
from vision_longformer.utils.devices import choose_device
from vision_longformer.utils.system_memory import parse_bytes
from vision_longformer.weights import load, reading_of

HOST = "127.0.0.1"
STROKES = "strokes.json"


def run(arguments: Arguments) -> int:
    images: list[OpenedImage] = []
    try:
        require_explore()
        serve = Serving(arguments.port)
        output = Path(arguments.output)
        paths = [Path(path) for path in arguments.images]
        of_features = [read_metadata(path) is not None for path in paths if path.exists()]
        encoder, name = (None, "") if all(of_features) and len(of_features) == len(paths) else _encoder(arguments)
        for path in paths:
            images.append(_open(path, arguments, encoder, alone=len(paths) == 1))
        check_same_backbone(images)
        file = Path(arguments.strokes) if arguments.strokes else output / STROKES
        project = Project.load(file) if file.exists() else Project()
        output.mkdir(parents=True, exist_ok=True)
    except (ImportError, OSError, ValueError) as error:
        close_all(images)
        raise UsageError(str(error)) from error
    try:
        session = Session(images, file, project, output)
        _serve(serve, session, arguments, encoder, name)
    finally:
        close_all(images)
    return 0


class Serving:
    """A port of this machine.

    Args:
        port: Its number; 0 takes any that is free.

    Raises:
        OSError: It is taken.
    """

    def __init__(self, port: int) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.socket.bind((HOST, port))
        except (OSError, OverflowError) as error:
            self.socket.close()
            reason = getattr(error, "strerror", None) or str(error)
            raise OSError(f"--port {port}: cannot be used ({reason.lower()})") from error

    def address(self, token: str) -> str:
        """Return where the page is."""
        return f"http://{HOST}:{self.socket.getsockname()[1]}/{token}/"


def _serve(serve: Serving, session: Session, arguments: Arguments, encoder: Encoder | None, name: str) -> None:
    import uvicorn

    from vision_longformer.explore.actions import Actions
    from vision_longformer.explore.encoding import encode_behind
    from vision_longformer.explore.server import build_app, new_token

    token = new_token()
    backbone = functools.partial(_backbone, session, encoder, arguments)
    if encoder is not None:
        memory = None if arguments.memory is None else parse_bytes(arguments.memory)
        encode_behind(session, session.output / "features", encoder, model_name=name, limits=Limits(memory=memory))
    app: Any = build_app(session, Actions(session, backbone), token=token)
    address = serve.address(token)
    print(f"The page is at {address} (Ctrl-C ends it).", flush=True)
    if not arguments.no_browser:
        webbrowser.open(address)
    config = uvicorn.Config(app, log_level="warning", lifespan="off", server_header=False)
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[serve.socket])
    say(arguments, f"Strokes are in {session.project_file}.")


def _encoder(arguments: Arguments) -> tuple[Encoder, str]:
    """Return what encodes images, and the name of its model."""
    name, model = chosen_model(arguments)
    if not arguments.checkpoint and arguments.model not in backbones():
        warn(UNTRAINED)
    return Encoder(model, stages=arguments.stages, device=choose_device(arguments.device)), name


def _open(path: Path, arguments: Arguments, encoder: Encoder | None, *, alone: bool) -> OpenedImage:
    if path.exists() and read_metadata(path) is not None:
        if arguments.image is not None and not alone:
            raise ValueError("--image: is for a single feature file")
        return open_features(path, image=None if arguments.image is None else Path(arguments.image))
    assert encoder is not None
    return open_image(path, reading=chosen_reading(arguments, trained=reading_of(encoder.model), tell=tell))


def _backbone(session: Session, encoder: Encoder | None, arguments: Arguments) -> VisionLongformer:
    """Return the model that made the features, for the head that is taken away."""
    if encoder is not None:
        return encoder.model
    if arguments.checkpoint:
        return chosen_model(arguments)[1]
    about = next(image.explored.features.metadata for image in session.images if image.explored is not None)
    made_by = str(about.get("model"))
    if Path(made_by).exists():
        return load(made_by)
    if made_by in shipped():
        return load(shipped()[made_by].checked_path())
    raise ValueError(f"the features are of {made_by}, whose weights are not there: give them with --checkpoint")
