"""`vil encode` from and to object stores: a real S3 server on loopback, and folders by URL."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load, load_file

from vil import main
from vision_longformer.features import mirror
from vision_longformer.features.load import load_features
from vision_longformer.utils import remote

pytest.importorskip("moto")
pytest.importorskip("s3fs")

import boto3
from moto.server import ThreadedMotoServer

pytestmark = [
    pytest.mark.process,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
COUNT = 6


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield
    server.stop()


@pytest.fixture
def bucket(server: None, tmp_path: Path) -> Iterator[tuple[str, Any]]:
    client = boto3.client("s3")
    name = f"bucket-{uuid.uuid4().hex}"
    client.create_bucket(Bucket=name)
    for path in pictures(tmp_path / "pictures"):
        client.upload_file(str(path), name, f"in/{path.parent.name}/{path.name}")
    client.put_object(Bucket=name, Key="in/notes.txt", Body=b"no image")
    yield name, client
    client.close()


def pictures(folder: Path) -> list[Path]:
    generator = np.random.default_rng(0)
    paths = [folder / f"day{number % 2}" / f"{number}.png" for number in range(COUNT)]
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (40 + number, 33, 3)).astype(np.uint8)).save(path)
    return paths


def arguments(source: str, output: str, *options: str) -> list[str]:
    return ["encode", source, "--output", output, "--model", "vision_longformer_nano", "--device", "cpu", *options]


def modified(client: Any, bucket: str, feature: str) -> Any:
    return client.head_object(Bucket=bucket, Key=f"out/{feature}")["LastModified"]


def keys(client: Any, bucket: str) -> set[str]:
    found = client.list_objects_v2(Bucket=bucket, Prefix="out/").get("Contents", [])
    return {entry["Key"].removeprefix("out/") for entry in found}


FEATURES = {f"day{number % 2}/{number}.png.safetensors" for number in range(COUNT)}


def test_from_s3_to_s3_as_from_disk_to_disk(
    bucket: tuple[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, client = bucket
    assert main(arguments(f"s3://{name}/in", f"s3://{name}/out")) == 0
    assert f"look at s3://{name}/out/index.html" in capsys.readouterr().out
    there = keys(client, name)
    assert {key for key in there if not key.startswith(".run/")} == FEATURES | {"index.html"}
    assert main(arguments(str(tmp_path / "pictures"), str(tmp_path / "local"))) == 0
    for feature in FEATURES:
        client.download_file(name, f"out/{feature}", str(tmp_path / "there.safetensors"))
        found, expected = (load_file(path) for path in (tmp_path / "there.safetensors", tmp_path / "local" / feature))
        assert found.keys() == expected.keys()
        assert all(torch.equal(tensor, expected[key]) for key, tensor in found.items())
    written = {feature: modified(client, name, feature) for feature in FEATURES}
    assert main(arguments(f"s3://{name}/in", f"s3://{name}/out")) == 0
    assert "6 done before" in capsys.readouterr().out
    assert {feature: modified(client, name, feature) for feature in FEATURES} == written


def test_killed_in_between_leaves_nothing_half(bucket: tuple[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    name, client = bucket
    slowly = [sys.executable, "-m", "vil", *arguments(f"s3://{name}/in", f"s3://{name}/out", "--batch", "1")]
    run = subprocess.Popen(slowly, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not keys(client, name) & FEATURES and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.wait()
    there = keys(client, name) & FEATURES
    assert there
    assert keys(client, name) - {"index.html"} <= FEATURES | {f".run/{name}" for name in ("run.json", "inputs.jsonl")}
    for feature in there:
        load(client.get_object(Bucket=name, Key=f"out/{feature}")["Body"].read())
    assert main(arguments(f"s3://{name}/in", f"s3://{name}/out")) == 0
    assert f"{len(there)} done before" in capsys.readouterr().out or len(there) == COUNT
    assert keys(client, name) & FEATURES == FEATURES


def test_embeddings_go_to_parquet(bucket: tuple[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    name, client = bucket
    for said in ("6 encoded", "6 done before"):
        assert main(arguments(f"s3://{name}/in", f"s3://{name}/out", "--format", "parquet")) == 0
        assert said in capsys.readouterr().out
        assert sum(key.endswith(".parquet") for key in keys(client, name)) == 1


def test_one_damaged_image_ends_nothing(bucket: tuple[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    name, client = bucket
    client.put_object(Bucket=name, Key="in/day0/0.png", Body=b"no picture")
    assert main(arguments(f"s3://{name}/in", f"s3://{name}/out")) == 1
    assert "5 encoded" in capsys.readouterr().out
    assert keys(client, name) & FEATURES == FEATURES - {"day0/0.png.safetensors"}


def test_a_url_that_means_nothing_is_one_sentence(
    server: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments("s3://there-is-no-such-bucket/in", str(tmp_path / "out"))) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("vil: s3://there-is-no-such-bucket/in: ")


def test_maps_go_to_zarr_whose_description_comes_last(
    bucket: tuple[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, client = bucket
    typed = arguments(f"s3://{name}/in/day0/0.png", f"s3://{name}/out", "--format", "zarr", "--stages", "3", "4")
    sent, upload = [], remote.upload

    def stopping(path: Path, url: str) -> None:
        if path.name == "zarr.json" and "0.png.zarr/zarr.json" in url:
            raise OSError("the connection broke")
        sent.append(url)
        upload(path, url)

    monkeypatch.setattr(mirror, "upload", stopping)
    assert main(typed) == 1
    assert sent
    assert "0.png.zarr/zarr.json" not in keys(client, name)
    monkeypatch.setattr(mirror, "upload", upload)
    for said in ("1 encoded", "1 done before"):
        assert main(typed) == 0
        assert said in capsys.readouterr().out
    assert main([*typed, "--verify"]) == 0
    assert "1 done before" in capsys.readouterr().out
    assert main(arguments(str(tmp_path / "pictures/day0/0.png"), str(tmp_path / "local"), *typed[-5:])) == 0
    found = load_features(download_all(client, name, "out/0.png.zarr", tmp_path / "there.zarr"))
    expected = load_features(tmp_path / "local" / "0.png.zarr")
    assert found.stages == expected.stages == (3, 4)
    for one, other in zip(found.maps, expected.maps, strict=True):
        np.testing.assert_array_equal(one[...], other[...])


def download_all(client: Any, bucket: str, prefix: str, target: Path) -> Path:
    for entry in client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/")["Contents"]:
        path = target / entry["Key"].removeprefix(f"{prefix}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        client.download_file(bucket, entry["Key"], str(path))
    return target


def test_rasters_are_refused_for_urls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(str(tmp_path), "memory://out", "--format", "geotiff")) == 2
    assert "--format safetensors, zarr or parquet" in capsys.readouterr().err
