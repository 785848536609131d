"""Arrays in `.npy` files are read by calls, and do not stay in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from images.test_tiff import HEIGHT, assert_rows, values
from vision_longformer.images import ImageError, NpyReader
from vision_longformer.utils.system_memory import resident_memory


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    ("channels", "dtype"), [(1, "uint8"), (3, "uint8"), (3, ">u2"), (5, "float32"), (2, "?"), (3, "<f2")]
)
def test_rows_of_every_layout(tmp_path: Path, channels: int, dtype: str, order: str) -> None:
    array = (values(channels, "float32") * 200).astype(dtype)
    np.save(tmp_path / "a.npy", np.asarray(array, order=order))  # type: ignore[call-overload]
    reader = NpyReader(tmp_path / "a.npy")
    assert_rows(reader, array)
    reader.close()


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_gray_image_has_two_axes(tmp_path: Path, order: str) -> None:
    array = values(1, "uint16")
    np.save(tmp_path / "a.npy", np.asarray(array[..., 0], order=order))  # type: ignore[call-overload]
    assert_rows(NpyReader(tmp_path / "a.npy"), array)


@pytest.mark.slow
@pytest.mark.skipif(resident_memory() is None, reason="the system does not tell what memory is held")
@pytest.mark.parametrize("order", ["C", "F"])
def test_what_was_read_does_not_stay_in_memory(tmp_path: Path, order: str) -> None:
    array = np.full((2000, 4000, 8), 7, dtype=np.uint8)
    np.save(tmp_path / "a.npy", np.asarray(array, order=order))  # type: ignore[call-overload]
    size = array.nbytes
    del array
    reader = NpyReader(tmp_path / "a.npy")
    before = resident_memory()
    for top in range(0, 2000, 100):
        assert (reader.read_rows(top, top + 100).values == 7).all()
        assert str(tmp_path) not in Path("/proc/self/maps").read_text()
    after = resident_memory()
    assert before is not None
    assert after is not None
    assert after - before < size / 4


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_file_that_is_cut_short_is_a_sentence(tmp_path: Path, order: str) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.asarray(values(3, "uint8"), order=order))  # type: ignore[call-overload]
    whole = path.read_bytes()
    reader = NpyReader(path)
    path.write_bytes(whole[:5000])
    with pytest.raises(ImageError, match=r"a\.npy: it is damaged \(it is cut short\)"):
        reader.read_rows(0, HEIGHT)
    with pytest.raises(ImageError, match=r"a\.npy: it is no NumPy file, or a damaged one"):
        NpyReader(path)
    with pytest.raises(ImageError, match=r"none\.npy: no such file or directory"):
        NpyReader(tmp_path / "none.npy")


def test_objects_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[1, "a"]], dtype=object), allow_pickle=True)
    with pytest.raises(ImageError, match=r"a\.npy: it is no NumPy file, or a damaged one"):
        NpyReader(tmp_path / "a.npy")
