"""What the page may ask for, as JSON, and what it is told."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vision_longformer.backbone import VisionLongformer
from vision_longformer.explore.jobs import OnShare
from vision_longformer.explore.session import Session
from vision_longformer.explore.similarity import Point
from vision_longformer.explore.strokes import Stroke
from vision_longformer.explore.takeaway import OFFERED, export, save_head
from vision_longformer.explore.tiles import SIDE, max_level
from vision_longformer.prediction.colours import class_colour

MAX_POINTS = 200
Body = Mapping[str, Any]
Answer = dict[str, Any]


class Actions:
    """Actions of the page on a session.

    Args:
        session: What it works on.
        backbone: Gives the model that made the features, for the head that is taken away.

    Attributes:
        written: Files that were written, which the page may fetch.
    """

    def __init__(self, session: Session, backbone: Callable[[], VisionLongformer]) -> None:
        self.session, self._backbone = session, backbone
        self.written: list[Path] = []

    def state(self) -> Answer:
        """Return all that the page shows."""
        session = self.session
        return {
            "revision": session.revision,
            "images": [self._image(number) for number in range(len(session.images))],
            "classes": self._classes(),
            "head": session.fitted is not None,
            "why_no_head": session.why_no_head,
            "job": None if session.jobs.latest is None else session.jobs.latest.to_dict(),
            "similar": self._asked(),
            "formats": OFFERED,
            "tile": SIDE,
        }

    def paint(self, body: Body) -> Answer:
        """Add a stroke."""
        self.session.paint(_image(body), Stroke.from_dict(body.get("stroke")))
        return self.state()

    def undo(self, body: Body) -> Answer:
        """Take back a stroke."""
        self.session.undo(_image(body))
        return self.state()

    def redo(self, body: Body) -> Answer:
        """Paint a stroke again."""
        self.session.redo(_image(body))
        return self.state()

    def classes(self, body: Body) -> Answer:
        """Rename or add classes."""
        names = body.get("names")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("names: must be a list of texts")
        self.session.set_classes([name.strip() for name in names])
        return self.state()

    def similar(self, body: Body) -> Answer:
        """Ask what is alike."""
        stage = body.get("stage")
        if stage is not None and type(stage) is not int:
            raise ValueError("stage: must be a whole number, or null for all")
        self.session.ask(_image(body), _points(body, "points"), _points(body, "against"), stage)
        return self.state()

    def threshold(self, body: Body) -> Answer:
        """Turn the heat map into regions, or back."""
        value = body.get("threshold")
        self.session.set_threshold(None if value is None else _number(value, "threshold"))
        return self.state()

    def forget(self, body: Body) -> Answer:
        """Forget what was asked to be alike."""
        self.session.forget()
        return self.state()

    def uncertain(self, body: Body) -> Answer:
        """Find the place of which the head is least certain."""
        view = body.get("view")
        if not isinstance(view, list) or len(view) != 4:
            raise ValueError("view: must be left, top, right and bottom")
        place = self.session.uncertain(_image(body), [_number(edge, "view") for edge in view])
        return {"place": place}

    def quality(self, body: Body) -> Answer:
        """Measure on strokes that are held out."""
        return {"quality": self.session.quality()}

    def apply(self, body: Body) -> Answer:
        """Label the whole image, in the background."""
        image = _image(body)
        self.session.model(image)

        def work(tell: OnShare) -> tuple[str, Answer]:
            self.session.apply(image, tell)
            return "The whole image is labelled.", {}

        self.session.jobs.begin("apply", work)
        return self.state()

    def export(self, body: Body) -> Answer:
        """Write labels of the whole image, in the background."""
        image, kind = _image(body), body.get("format")
        if not isinstance(kind, str) or kind not in OFFERED:
            raise ValueError(f"format: must be one of {', '.join(OFFERED)}")
        self.session.model(image)

        def work(tell: OnShare) -> tuple[str, Answer]:
            path, counts = export(self.session, image, kind, tell)
            return f"Written: {path}", self._written(path) | {"pixels": counts}

        self.session.jobs.begin("export", work)
        return self.state()

    def head(self, body: Body) -> Answer:
        """Write the head, in the background."""

        def work(tell: OnShare) -> tuple[str, Answer]:
            path = save_head(self.session, self._backbone)
            return f"Written: {path}. Use it on other images: vil predict {path} IMAGES", self._written(path)

        self.session.jobs.begin("head", work)
        return self.state()

    def _written(self, path: Path) -> Answer:
        if path not in self.written:
            self.written.append(path)
        return {"path": str(path), "file": self.written.index(path) if path.is_file() else None}

    def _image(self, number: int) -> Answer:
        image = self.session.images[number]
        height, width = image.tiles.size
        about: Answer = {} if image.explored is None else {"stages": list(image.explored.stages)}
        applied, names = self.session.applied_now(number), self.session.project.classes
        shares = None if applied is None else {names[label]: share for label, share in applied.shares.items()}
        pixel_size = image.facts.pixel_size
        return about | {
            "name": image.name,
            "width": width,
            "height": height,
            "max_level": max_level(image.tiles.size),
            "ready": image.explored is not None,
            "share": image.share,
            "problem": image.problem,
            "strokes": [stroke.to_dict() for stroke in self.session.strokes(number)],
            "undone": self.session.undone(number),
            "shares": shares,
            "micrometres": None if pixel_size is None else pixel_size[1],
        }

    def _classes(self) -> list[Answer]:
        project = self.session.project
        strokes = [stroke.label for image in project.strokes.values() for stroke in image]
        return [
            {"name": name, "colour": "#" + "".join(f"{part:02x}" for part in class_colour(number))}
            | {"strokes": strokes.count(number)}
            for number, name in enumerate(project.classes)
        ]

    def _asked(self) -> Answer | None:
        asked = self.session.asked
        if asked is None:
            return None
        found = asked.found
        return {
            "image": asked.image,
            "points": [list(point) for point in asked.points],
            "against": [list(point) for point in asked.against],
            "stage": asked.stage,
            "threshold": asked.threshold,
            "count": None if found is None else found.number,
        }


_ACTIONS: dict[str, Callable[[Actions, Body], Answer]] = {
    action.__name__: action
    for action in (
        Actions.paint,
        Actions.undo,
        Actions.redo,
        Actions.classes,
        Actions.similar,
        Actions.threshold,
        Actions.forget,
        Actions.uncertain,
        Actions.quality,
        Actions.apply,
        Actions.export,
        Actions.head,
    )
}


def ask_for(name: str) -> Callable[[Actions, Body], Answer] | None:
    """Return the action of a name; None if there is none."""
    return _ACTIONS.get(name)


def _image(body: Body) -> int:
    number = body.get("image", 0)
    if type(number) is not int:
        raise ValueError("image: must be a whole number")
    return number


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name}: must be a number")
    return float(value)


def _points(body: Body, name: str) -> Sequence[Point]:
    points = body.get(name, [])
    if not isinstance(points, list) or len(points) > MAX_POINTS:
        raise ValueError(f"{name}: must be a list of at most {MAX_POINTS} points")
    if not all(isinstance(point, list) and len(point) == 2 for point in points):
        raise ValueError(f"{name}: must be a list of x and y")
    return [(_number(x, name), _number(y, name)) for x, y in points]
