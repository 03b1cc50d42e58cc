"""Remote stores for tests: fsspec's own in memory, and S3 as moto serves it on the loopback."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import s3fs
from moto.server import ThreadedMotoServer

from synth_pipeline import storage
from synth_pipeline.lineage.commit import commit, staging
from synth_pipeline.lineage.manifests import Manifest
from synth_pipeline.storage import Place

BUCKET = "market"


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """An S3 of its own with one bucket; everything it needs stands in the environment, as a user has it."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        forget_connections()
        yield f"s3://{BUCKET}"
        forget_connections()
    server.stop()


def forget_connections() -> None:
    """Have the next access read its credentials and address from the environment."""
    s3fs.S3FileSystem.clear_instance_cache()
    storage.place_of.cache_clear()


@pytest.fixture(params=["memory", "s3"])
def url(request: pytest.FixtureRequest, s3: str) -> str:
    """A prefix of its own on each kind of store."""
    top = s3 if request.param == "s3" else f"memory://{BUCKET}"
    return f"{top}/{request.node.name.replace('[', '-').replace(']', '')}"


def put(data: Place, manifest: Manifest, texts: dict[str, str], aside: Path) -> Manifest:
    with staging(aside / "partition") as tmp:
        for name, text in texts.items():
            (tmp / name).write_text(text)
        return commit(data / manifest.ref, manifest, {name: tmp / name for name in texts})
