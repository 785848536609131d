from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from vision_longformer.explore.actions import Actions
from vision_longformer.explore.jobs import OnShare
from vision_longformer.explore.server import HEADERS, MAX_BODY, STATIC, build_app
from vision_longformer.explore.session import Session
from vision_longformer.prediction.colours import class_colour
from vision_longformer.prediction.predictor import load_predictor

from . import exploring
from .exploring import HALVES

TOKEN = "abc-123"
HOME = "http://127.0.0.1:8000"


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    found = exploring.session(tmp_path, exploring.opened(tmp_path))
    yield found
    found.images[0].close()


@pytest.fixture
def client(session: Session) -> TestClient:
    app = build_app(session, Actions(session, exploring.model), token=TOKEN)
    return TestClient(app, base_url=HOME)


def _do(client: TestClient, action: str, **body: Any) -> dict[str, Any]:
    answer = client.post(f"/{TOKEN}/api/{action}", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def _paint(client: TestClient) -> dict[str, Any]:
    state: dict[str, Any] = {}
    for stroke in HALVES:
        state = _do(client, "paint", image=0, stroke=stroke.to_dict())
    return state


def _wait(client: TestClient, session: Session) -> dict[str, Any]:
    session.jobs.wait()
    job: dict[str, Any] = client.get(f"/{TOKEN}/api/state").json()["job"]
    assert job["state"] == "done", job
    return job


def test_the_page_and_its_parts_are_there(client: TestClient) -> None:
    page = client.get(f"/{TOKEN}/")

    assert "<title>Explore</title>" in page.text
    assert HEADERS.items() <= dict(page.headers).items()
    for name in STATIC:
        assert client.get(f"/{TOKEN}/{name}").status_code == 200


@pytest.mark.parametrize(
    "path", ["/", "/api/state", "/wrong/", "/wrong/api/state", f"/{TOKEN}x/", "//", f"/x/{TOKEN}/"]
)
def test_without_the_token_nothing_is_answered(client: TestClient, path: str) -> None:
    answer = client.get(path)

    assert answer.status_code == 403
    assert answer.json() == {"error": "the address lacks the token: take it from the terminal as it is printed there"}


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"host": "evil.example"},
        {"host": "evil.example:8000"},
    ],
)
def test_requests_of_other_pages_and_names_are_refused(client: TestClient, headers: dict[str, str]) -> None:
    for answer in (
        client.get(f"/{TOKEN}/api/state", headers=headers),
        client.post(f"/{TOKEN}/api/undo", json={}, headers=headers),
    ):
        assert answer.status_code == 403


def test_requests_of_the_page_itself_are_answered(client: TestClient) -> None:
    headers = {"origin": HOME, "sec-fetch-site": "same-origin"}

    assert client.get(f"/{TOKEN}/api/state", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "../pyproject.toml",
        "..%2f..%2fserver.py",
        "%2e%2e/server.py",
        "static/index.html",
        "vendor/openseadragon.min.js",
        "server.py",
        "%2Fetc%2Fpasswd",
        "files/0",
        "files/-1",
        "tiles/1/0/0_0",
        "tiles/0/99/0_0",
        "tiles/0/0/1_0",
        "overlay/secret/0/1/0/0_0",
    ],
)
def test_there_is_nothing_outside(client: TestClient, path: str) -> None:
    assert client.get(f"/{TOKEN}/{path}").status_code in (403, 404)


def test_oversized_bodies_are_refused_before_they_are_read(client: TestClient, session: Session) -> None:
    told = client.post(f"/{TOKEN}/api/paint", content=b" " * (MAX_BODY + 1))

    def pieces() -> Iterator[bytes]:
        for _ in range(MAX_BODY // 2**16 + 2):
            yield b" " * 2**16

    untold = client.post(f"/{TOKEN}/api/paint", content=pieces(), headers={"content-type": "application/json"})

    assert told.status_code == untold.status_code == 413
    assert "larger than 1,048,576 bytes" in told.json()["error"]
    assert not session.strokes(0)


@pytest.mark.parametrize(
    ("action", "body", "message"),
    [
        ("paint", {"image": 3, "stroke": HALVES[0].to_dict()}, "image=3: there are 1, counted from 0"),
        ("paint", {"image": "0", "stroke": HALVES[0].to_dict()}, "image: must be a whole number"),
        ("paint", {"image": 0, "stroke": None}, "a stroke is damaged"),
        ("paint", {"image": 0, "stroke": {"class": 5, "points": [[1, 1]], "radius": 1}}, "class number 5"),
        ("paint", {"image": 0, "stroke": {"class": 0, "points": [[1, 1]], "radius": "wide"}}, "could not convert"),
        ("undo", {"image": 0}, "there is no stroke to take back"),
        ("redo", {"image": 0}, "there is no stroke to paint again"),
        ("classes", {"names": "x"}, "names: must be a list of texts"),
        ("classes", {"names": ["only"]}, "not taken away"),
        ("classes", {"names": ["a", "b", "  "]}, "is no name of 1 to 100 letters"),
        ("similar", {"points": []}, "give at least one to be alike"),
        ("similar", {"points": [[1]]}, "points: must be a list of x and y"),
        ("similar", {"points": [[1, 1]], "stage": 9}, "stage=9: the features hold stages 1, 2, 3, 4"),
        ("similar", {"points": [[1, 1]] * 201}, "at most 200 points"),
        ("threshold", {"threshold": 0.5}, "click a place first"),
        ("threshold", {"threshold": "x"}, "threshold: must be a number"),
        ("uncertain", {"view": [0, 0, 9]}, "left, top, right and bottom"),
        ("uncertain", {"view": [0, 0, 9, 9]}, "paint places of at least two classes"),
        ("quality", {}, "paint at least two of every class"),
        ("apply", {}, "paint places of at least two classes"),
        ("export", {"format": "exe"}, "format: must be one of labels, zarr, geojson, csv"),
        ("export", {"format": "csv"}, "paint places of at least two classes"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    client: TestClient, action: str, body: dict[str, Any], message: str
) -> None:
    answer = client.post(f"/{TOKEN}/api/{action}", json=body)

    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_what_is_no_json_is_refused(client: TestClient) -> None:
    path, json_type = f"/{TOKEN}/api/undo", {"content-type": "application/json"}

    assert client.post(path, content=b"{", headers=json_type).status_code == 400
    assert client.post(path, content=b"[]", headers=json_type).status_code == 400
    assert client.post(path, content=b"{}", headers={"content-type": "text/plain"}).status_code == 415
    assert client.post(f"/{TOKEN}/api/format-disk", json={}).status_code == 404


def _shown(client: TestClient, kind: str, revision: int, *, level: int = 8) -> np.ndarray:
    answer = client.get(f"/{TOKEN}/overlay/{kind}/0/{revision}/{level}/0_0")
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-revision"] == str(revision)
    return np.asarray(Image.open(io.BytesIO(answer.content)))


def test_strokes_change_what_is_shown_and_undo_takes_them_back(client: TestClient, session: Session) -> None:
    state = _paint(client)
    assert state["head"]
    assert [about["strokes"] for about in state["classes"]] == [2, 2]
    first = _shown(client, "classes", state["revision"])
    assert first[75, 20].tolist() == [*class_colour(0), 255]
    assert first[75, 200].tolist() == [*class_colour(1), 255]

    swapped = _do(client, "paint", image=0, stroke={"class": 1, "points": [[30, 40], [60, 110]], "radius": 20})
    undone = _do(client, "undo", image=0)

    assert swapped["revision"] > state["revision"]
    np.testing.assert_array_equal(_shown(client, "classes", undone["revision"]), first)
    assert undone["images"][0]["undone"] == 1
    assert _do(client, "redo", image=0)["images"][0]["strokes"] == swapped["images"][0]["strokes"]
    assert len(json.loads(session.project_file.read_text())["images"]) == 1


def test_an_overlay_of_an_older_revision_is_not_given_out(client: TestClient) -> None:
    old = _paint(client)["revision"]
    new = _do(client, "paint", image=0, stroke=HALVES[0].to_dict())["revision"]

    answer = client.get(f"/{TOKEN}/overlay/classes/0/{old}/8/0_0")

    assert answer.status_code == 409
    assert answer.headers["x-revision"] == str(new)


def test_similar_places_become_regions_with_a_count(client: TestClient) -> None:
    state = _do(client, "similar", image=0, points=[[30, 40]])
    heat = _shown(client, "similar", state["revision"])
    assert heat[..., 3][:, :100].mean() > heat[..., 3][:, 120:].mean()

    state = _do(client, "threshold", threshold=0.2)
    assert state["similar"]["count"] >= 1
    shown = _shown(client, "similar", state["revision"])
    assert set(np.unique(shown[..., 3])) <= {0, 255}

    assert _do(client, "forget")["similar"] is None


def test_the_next_uncertain_place_lies_in_the_view(client: TestClient) -> None:
    _paint(client)

    x, y = _do(client, "uncertain", image=0, view=[60, 30, 160, 120])["place"]

    assert 60 <= x <= 163
    assert 30 <= y <= 123


def test_quality_names_the_classes(client: TestClient) -> None:
    _paint(client)

    quality = _do(client, "quality")["quality"]

    assert quality["strokes"] == 4
    assert quality["iou"].keys() == {"background", "object"}


def test_exported_labels_are_what_the_page_shows_and_what_the_head_predicts(
    client: TestClient, session: Session, tmp_path: Path
) -> None:
    state = _paint(client)
    shown = _shown(client, "classes", state["revision"])
    _do(client, "apply", image=0)
    _wait(client, session)
    assert sum(client.get(f"/{TOKEN}/api/state").json()["images"][0]["shares"].values()) == pytest.approx(1)

    _do(client, "export", image=0, format="labels")
    found = _wait(client, session)["found"]
    exported = np.asarray(Image.open(io.BytesIO(client.get(f"/{TOKEN}/files/{found['file']}").content)))
    assert exported.shape == exploring.SIZE
    palette = np.array([class_colour(0), class_colour(1)])
    np.testing.assert_array_equal(palette[exported], shown[..., :3])
    assert found["pixels"] == {"background": int((exported == 0).sum()), "object": int((exported == 1).sum())}
    np.testing.assert_array_equal(_shown(client, "classes", state["revision"]), shown)  # now of the whole image

    _do(client, "head")
    head = _wait(client, session)["found"]["path"]
    predicted: Any = load_predictor(head)(str(tmp_path / "picture0.png"))
    np.testing.assert_array_equal(predicted.labels, exported)
    assert predicted.class_names == ("background", "object")


@pytest.mark.parametrize(
    ("kind", "name"), [("geojson", "picture0.png.labels.geojson"), ("csv", "picture0.png.labels.csv")]
)
def test_other_formats_are_those_of_predictions(client: TestClient, session: Session, kind: str, name: str) -> None:
    _paint(client)

    _do(client, "export", image=0, format=kind)

    assert Path(_wait(client, session)["found"]["path"]) == session.output / name
    assert (session.output / name).stat().st_size > 0


def test_a_head_of_another_backbone_than_that_of_the_features_is_not_written(session: Session) -> None:
    client = TestClient(
        build_app(session, Actions(session, lambda: exploring.model(seed=9)), token=TOKEN), base_url=HOME
    )
    _paint(client)

    _do(client, "head")
    session.jobs.wait()

    job = client.get(f"/{TOKEN}/api/state").json()["job"]
    assert job["state"] == "failed"
    assert "the features are of other weights than small has now" in job["message"]


def test_one_job_runs_at_a_time(client: TestClient, session: Session) -> None:
    _paint(client)
    go_on = threading.Event()

    def work(tell: OnShare) -> tuple[str, None]:
        go_on.wait(30)
        return "", None

    session.jobs.begin("apply", work)

    answer = client.post(f"/{TOKEN}/api/apply", json={"image": 0})
    go_on.set()
    session.jobs.wait()

    assert answer.status_code == 400
    assert "something else is being computed" in answer.json()["error"]


def test_fifty_clients_at_once_get_the_same_as_one(client: TestClient) -> None:
    revision = _paint(client)["revision"]
    paths = [f"/{TOKEN}/overlay/classes/0/{revision}/8/0_0", f"/{TOKEN}/tiles/0/8/0_0", f"/{TOKEN}/api/state"]
    expected = [client.get(path).content for path in paths]

    with ThreadPoolExecutor(50) as pool:
        found = list(pool.map(lambda number: client.get(paths[number % 3]).content, range(150)))

    assert all(content == expected[number % 3] for number, content in enumerate(found))
