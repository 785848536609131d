"""Label images as rasterio, tifffile, Pillow and zarr read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
import zarr
from ome_zarr_models.v05.image_label import ImageLabel
from PIL import Image

from prediction.cases import CLASSES, UTM, random_classes, random_objects
from vision_longformer.images.pixel_size import read_pixel_size
from vision_longformer.prediction import formats
from vision_longformer.prediction.measures import ImageFacts
from vision_longformer.prediction.results import RegionsResult


def test_objects_as_tiff(tmp_path: Path) -> None:
    result = random_objects(0, size=(600, 70), facts={"pixel_size": (0.25, 0.5)})
    path = result.save(tmp_path / "x.tif")
    with tifffile.TiffFile(path) as file:
        np.testing.assert_array_equal(file.asarray(), result.labels)
        assert file.asarray().dtype == np.uint32
        tags = file.pages[0].tags
        assert (tags["XResolution"].value, tags["YResolution"].value) == ((20000, 1), (40000, 1))  # a centimetre


@pytest.mark.parametrize("result", [random_objects(1, facts={"georeference": UTM}),
                                    random_classes(1, facts={"georeference": UTM}, missing=True)])  # fmt: skip
def test_geotiff_lies_where_its_image_lies(result: RegionsResult, tmp_path: Path) -> None:
    image = tmp_path / "image.tif"
    height, width = result.image.size
    place = {"crs": UTM["crs"], "transform": rasterio.Affine(*UTM["transform"])}
    with rasterio.open(image, "w", driver="GTiff", height=height, width=width, count=1, dtype="uint8", **place) as file:
        file.write(np.zeros((1, height, width), np.uint8))
    path = result.save(tmp_path / "labels.tif")
    with rasterio.open(image) as before, rasterio.open(path) as after:
        assert (after.crs, after.transform, after.bounds) == (before.crs, before.transform, before.bounds)
        np.testing.assert_array_equal(after.read(1), result.label_rows(0, height))
        assert after.nodata == result.no_data
        assert after.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        if result.kind == "pixels":
            assert after.nodata == 255
            assert after.colormap(1)[1][:3] == result.colour(1)
            assert after.tags()["CLASS_1"] == CLASSES[1]


def test_classes_of_an_image_that_lacks_nothing_have_no_missing_value(tmp_path: Path) -> None:
    path = random_classes(1, facts={"georeference": UTM}).save(tmp_path / "x.tif")
    with rasterio.open(path) as file:
        assert file.nodata is None


def test_classes_as_png(tmp_path: Path) -> None:
    result = random_classes(0)
    with Image.open(result.save(tmp_path / "x.png")) as image:
        assert image.mode == "L"
        np.testing.assert_array_equal(np.asarray(image), result.labels)


@pytest.mark.parametrize("facts", [{}, {"pixel_size": (0.25, 0.5)}])
@pytest.mark.parametrize("make", [random_objects, random_classes])
def test_ome_zarr(make: object, facts: dict[str, tuple[float, float]], tmp_path: Path) -> None:
    result = make(0, size=(700, 1100), facts=facts)  # type: ignore[operator]
    path = result.save(tmp_path / "x.zarr")
    group = zarr.open_group(path, mode="r")
    np.testing.assert_array_equal(group["0"][:], result.labels)
    np.testing.assert_array_equal(group["2"][:], result.labels[::4, ::4])
    assert group["0"].dtype == result.label_type
    model = ImageLabel.from_zarr(group)
    (multiscale,) = model.ome_attributes.multiscales
    assert [dataset.path for dataset in multiscale.datasets] == ["0", "1", "2", "3"]
    scales = [dataset.coordinateTransformations[0].scale for dataset in multiscale.datasets]
    height, width = facts.get("pixel_size", (1.0, 1.0))
    assert scales[:2] == [[height, width], [2 * height, 2 * width]]
    assert {axis.unit for axis in multiscale.axes} == {"micrometer" if facts else None}
    colours = model.ome_attributes.image_label.colors
    assert colours is not None
    assert colours[0].label_value == (1 if result.kind == "objects" else 0)


def test_what_fits_the_image_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, on_map = ImageFacts("x", (30, 40)), ImageFacts("x", (30, 40), UTM)
    assert formats.format_of("labels", "objects", plain) == "tiff"
    assert formats.format_of("labels", "pixels", plain) == "png"
    assert formats.format_of("labels", "objects", on_map) == formats.format_of("labels", "pixels", on_map) == "geotiff"
    monkeypatch.setattr(formats, "LARGE", 1000)
    assert formats.format_of("labels", "objects", on_map) == "zarr"
    assert formats.format_of("geojson", "objects", on_map) == "geojson"


def test_a_folder_of_something_else_stays(tmp_path: Path) -> None:
    (tmp_path / "x.zarr").mkdir()
    (tmp_path / "x.zarr/mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="holds something else"):
        random_objects(0).save(tmp_path / "x.zarr")
    assert (tmp_path / "x.zarr/mine.txt").exists()


def test_pixel_sizes_are_read(tmp_path: Path) -> None:
    pixels = np.zeros((20, 30), np.uint8)
    ome = {
        "axes": "YX",
        "PhysicalSizeX": 250,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 0.5,
        "PhysicalSizeYUnit": "µm",
    }
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, metadata=ome)
    tifffile.imwrite(tmp_path / "b.tif", pixels, imagej=True, resolution=(4, 2), metadata={"unit": "um"})
    tifffile.imwrite(tmp_path / "c.tif", pixels, resolution=(72, 72), resolutionunit="INCH")  # for printers
    tifffile.imwrite(tmp_path / "d.tif", pixels, imagej=True)
    assert read_pixel_size(tmp_path / "a.ome.tif") == (0.5, 0.25)
    assert read_pixel_size(tmp_path / "b.tif") == (0.5, 0.25)
    assert read_pixel_size(tmp_path / "c.tif") is None
    assert read_pixel_size(tmp_path / "d.tif") is None
    assert read_pixel_size(tmp_path / "missing.tif") is None
