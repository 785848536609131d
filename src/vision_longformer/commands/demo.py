"""`vil demo`: a first look, on micrographs that come with the package."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from vision_longformer.commands import explore
from vision_longformer.commands.common import Arguments, UsageError, check_output
from vision_longformer.commands.options.images import explore_parser
from vision_longformer.explore.strokes import Project
from vision_longformer.prediction.predictor import load_predictor
from vision_longformer.prediction.results import ObjectsResult
from vision_longformer.pretrained import ready_models

READY, BACKBONE = "nuclei", "vision_longformer_nano"
MARKED = 1254  # nuclei, by experts
CLASSES = ("background", "nucleus")


def run(arguments: Arguments) -> int:
    output = Path(arguments.output)
    check_output("--output", output)
    mosaic = demo_image()
    print(f"36 micrographs of cell nuclei (CC0), in which experts marked {MARKED:,} nuclei: {mosaic}", flush=True)
    try:
        output.mkdir(parents=True, exist_ok=True)
        print(count(mosaic, output, arguments.device), flush=True)
        if not (strokes := output / explore.STROKES).exists():
            Project(CLASSES).save(strokes)
    except (ImportError, OSError, ValueError, MemoryError) as error:
        raise UsageError(str(error)) from error
    return explore.run(explore_parser().parse_args(_options(arguments, mosaic)))


def demo_image() -> Path:
    """Return the file of the mosaic."""
    return Path(str(files("vision_longformer.explore").joinpath("demo", "nuclei.jpg")))


def count(mosaic: Path, output: Path, device: str) -> str:
    """Return what the ready model says of the mosaic; what it found is drawn into the output."""
    if READY not in ready_models():
        return f"The ready model {READY}, which counts them, is not in this package: paint strokes on the page instead."
    found = load_predictor(READY, device=device)(mosaic)
    assert isinstance(found, ObjectsResult)
    picture = found.save(output / "counted.jpg", format="picture")
    return f"The ready model {READY} counts {len(found):,}; they are drawn in {picture}."


def _options(arguments: Arguments, mosaic: Path) -> list[str]:
    """Return what would be typed after `vil explore`."""
    typed = [str(mosaic), "--output", arguments.output, "--model", BACKBONE]
    typed += ["--device", arguments.device, "--port", str(arguments.port)]
    return [*typed, "--no-browser"] if arguments.no_browser else typed
