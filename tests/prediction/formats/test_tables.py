"""Tables and GeoPackage as others read them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyogrio
import pytest
from skimage.measure import regionprops

from prediction.cases import UTM, random_classes, random_objects
from vision_longformer.prediction.formats.tables import safe, write_csv


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_objects_measure_what_scikit_image_measures(tmp_path: Path) -> None:
    result = random_objects(5, facts={"pixel_size": (0.5, 0.5)})
    rows = read_csv(result.save(tmp_path / "x.csv"))
    assert result.masks is not None
    for row, mask in zip(rows, result.masks, strict=True):
        (region,) = regionprops(mask.astype(np.uint8))
        assert float(row["area_px"]) == region.area
        assert float(row["area_um2"]) == region.area / 4
        assert float(row["perimeter_um"]) == float(row["perimeter_px"]) / 2
        y, x = region.centroid
        assert (float(row["centroid_x"]), float(row["centroid_y"])) == pytest.approx((x + 0.5, y + 0.5))
        assert float(row["centroid_x_um"]) == pytest.approx((x + 0.5) / 2)
        top, left, bottom, right = region.bbox
        assert [float(row[name]) for name in ("x1", "y1", "x2", "y2")] == [left, top, right, bottom]


def test_objects_on_a_map_have_metres_and_coordinates() -> None:
    (row, *_) = random_objects(5, facts={"georeference": UTM}).rows()
    assert row["area_m2"] == row["area_px"] / 16
    assert row["map_x"] == pytest.approx(500000.5 + row["centroid_x"] / 4)
    assert row["map_y"] == pytest.approx(5100000.25 - row["centroid_y"] / 4)


def test_class_areas(tmp_path: Path) -> None:
    result = random_classes(0, missing=True, facts={"pixel_size": (0.5, 0.25)})
    rows = read_csv(result.save(tmp_path / "x.csv"))
    assert [int(row["area_px"]) for row in rows] == [int((result.labels == number).sum()) for number in range(3)]
    assert float(rows[0]["area_um2"]) == int(rows[0]["area_px"]) / 8
    assert sum(float(row["share"]) for row in rows) == pytest.approx(1)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "＝1"])
def test_text_is_no_formula(text: str, tmp_path: Path) -> None:
    write_csv(tmp_path / "x.csv", lambda: [{"class": text, text: -1.5}])
    (row,) = read_csv(tmp_path / "x.csv")
    shown = "'" + text.replace("\r", "\n")
    assert row == {"class": shown, shown: "-1.5"}
    assert safe("a=b") == "a=b"
    assert safe(-1) == -1


def test_a_class_that_looks_like_a_formula(tmp_path: Path) -> None:
    result = random_objects(0)
    assert "=1+1" in result.classes
    names = {row["class"] for row in read_csv(result.save(tmp_path / "x.csv"))}
    assert names <= {"cell", "'=1+1"}
    assert set(pandas.read_parquet(result.save(tmp_path / "x.parquet"))["class"]) == set(result.classes)


def test_columns_are_there_without_rows(tmp_path: Path) -> None:
    write_csv(tmp_path / "x.csv", list, columns=("image", "id"))
    assert (tmp_path / "x.csv").read_text() == "image,id\n"


def test_parquet_and_pandas_have_the_same_values(tmp_path: Path) -> None:
    result = random_objects(3, facts={"georeference": UTM})
    stored = pandas.read_parquet(result.save(tmp_path / "x.parquet"))
    pandas.testing.assert_frame_equal(stored, result.to_dataframe(), check_dtype=False)
    assert stored["id"].dtype == np.int64


@pytest.mark.parametrize("facts", [{"georeference": UTM}, {}])
def test_geopackage(facts: dict[str, Any], tmp_path: Path) -> None:
    result = random_objects(3, facts=facts)
    path = result.save(tmp_path / "x.gpkg")
    about = pyogrio.read_info(path, layer="objects")
    assert about["features"] == len(result)
    assert about["crs"] == ("EPSG:32633" if facts else about["crs"])
    table = pyogrio.raw.read(path)
    values = dict(zip(table[0]["fields"].tolist(), table[3], strict=True))
    assert values["number"].tolist() == list(range(1, len(result) + 1))
    assert values["class"].tolist() == list(result.classes)
    np.testing.assert_allclose(values["score"], result.scores)
    x1, y1, x2, y2 = result.boxes.min(axis=0)[:2].tolist() + result.boxes.max(axis=0)[2:].tolist()
    if facts:
        x1, x2, y1, y2 = 500000.5 + x1 / 4, 500000.5 + x2 / 4, 5100000.25 - y2 / 4, 5100000.25 - y1 / 4
    assert about["total_bounds"] == pytest.approx((x1, y1, x2, y2))
    assert sorted(item.name for item in tmp_path.iterdir()) == ["x.gpkg"]
    assert random_classes(0).save(tmp_path / "y.gpkg").exists()
    assert pyogrio.list_layers(tmp_path / "y.gpkg")[0][0] == "classes"
