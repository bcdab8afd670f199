"""Uploads 300 photos with the AWS command line, 30 of them unusable: every one has a finished job.

One of the two runs kills the model server during processing.
"""

from __future__ import annotations

import io
import os
import shutil
import struct
import subprocess
import sys
import zlib
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image

from local.connect import client
from maskdrop.job import Source, dropped
from tests.e2e.conftest import Running, wait_until

AWS_CLI = "awscli==1.45.11"

PHOTOS, UNUSABLE, TWICE = 300, 30, 20

CODES = {
    "empty": {"empty_file"},
    "zero": {"empty_file"},
    "truncated": {"unreadable_picture"},
    "text": {"unsupported_format"},
    "bomb": {"resolution_too_high"},
    "folder": {"directory_marker"},
}
"""Kind of unusable file -> expected error codes."""


@pytest.fixture(scope="module")
def aws(running: Running) -> list[str]:
    """The AWS command line for the stack, in its own virtual environment, because it requires another botocore."""
    folder = running.config.made / "aws-cli"
    program = folder / "bin" / "aws"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)  # noqa: S603
        subprocess.run([folder / "bin" / "pip", "install", "--quiet", AWS_CLI], check=True)  # noqa: S603
    return [str(program), "--endpoint-url", running.stack.endpoint_url]


def run(running: Running, *command: str) -> subprocess.Popen[bytes]:
    stack = running.stack
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(running.config.state),
        "AWS_ACCESS_KEY_ID": stack.access_key_id,
        "AWS_SECRET_ACCESS_KEY": stack.secret_access_key,
        "AWS_DEFAULT_REGION": stack.region,
    }
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)  # noqa: S603


def a_bomb(side: int) -> bytes:
    """Returns a PNG with a header for side x side pixels and data for one row."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * (1 + 3 * side))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def fill(folder: Path, photo: bytes) -> set[str]:
    """Writes the photos to `folder` and returns their names: 270 distinct good ones and 25 unusable ones.

    The 5 folder markers cannot be files.
    """
    with Image.open(io.BytesIO(photo)) as opened:
        sample = opened.convert("RGB").resize((256, 256))
    folder.mkdir(parents=True)
    for number in range(PHOTOS - UNUSABLE):
        sample.putpixel((0, 0), (number % 256, number // 256, 0))
        sample.save(folder / f"good {number:03}+ü.jpg", quality=90)
    good = (folder / "good 000+ü.jpg").read_bytes()
    bodies = {
        "empty": b"",
        "zero": b"",
        "truncated": good[: len(good) // 2],
        "text": b"This is no photo.\n" * 50,
        "bomb": a_bomb(60_000),
    }
    for kind, body in bodies.items():
        for number in range(UNUSABLE // len(CODES)):
            (folder / f"{kind}-{number}.jpg").write_bytes(body)
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("killed", [False, True], ids=["undisturbed", "with the model server killed"])
def test_each_of_300_photos_has_exactly_one_finished_job(
    running: Running, aws: list[str], photo: bytes, killed: bool
) -> None:
    prefix = f"inbox/default/killed-{killed}/"
    folder = running.config.state / "photos"
    shutil.rmtree(folder, ignore_errors=True)
    names = fill(folder, photo)
    twice = sorted(name for name in names if name.startswith("good"))[:TWICE]
    markers = {f"folder-{number}/" for number in range(UNUSABLE // len(CODES))}
    target = f"s3://{running.stack.inbox}/{prefix}"

    copies = [run(running, *aws, "s3", "cp", "--recursive", str(folder), target)]
    copies += [
        run(running, *aws, "s3api", "put-object", "--bucket", running.stack.inbox, "--key", f"{prefix}{marker}")
        for marker in sorted(markers)
    ]
    assert [copy.wait() for copy in copies] == [0] * len(copies)
    again = ["--exclude", "*", *(word for name in twice for word in ("--include", name))]
    second = run(running, *aws, "s3", "cp", "--recursive", str(folder), target, *again)
    if killed:
        wait_until(lambda: running.images_in_model() > 0, "an image in the model server")
        running.model().kill()
    assert second.wait() == 0

    jobs = running.wait_for_end(versions(running, prefix), timeout_s=600)

    # Each uploaded version has one finished job.
    assert len(jobs) == PHOTOS + TWICE
    assert {job.source.key for job in jobs.values()} == {prefix + name for name in names | markers}
    newest = current(running, prefix)
    results = objects(running, prefix.replace("inbox/", "results/", 1))
    for job in jobs.values():
        kind = job.source.key.removeprefix(prefix).partition("-")[0]
        if kind in CODES:
            assert job.state == "failed"
            assert job.error
            assert job.error.code in CODES[kind]
            assert job.error.message.endswith(".")
        elif job.source.version_id == newest[job.source.key]:
            assert job.state == "done", job.error
        else:
            assert job.state == "done" or (job.error and job.error.code == "source_replaced")
    # Each good photo has one result; unusable photos have none.
    done = {job.result.key for job in jobs.values() if job.result}
    assert results == Counter(dict.fromkeys(done, 1))
    assert len(done) == PHOTOS - UNUSABLE
    wait_until(running.queues_empty, "empty queues")


def versions(running: Running, prefix: str) -> set[str]:
    """Returns the job ids of all versions of all objects with the prefix."""
    pages = client(running.config, "s3").get_paginator("list_object_versions")
    return {
        dropped(Source(running.stack.inbox, version["Key"], version["VersionId"]), datetime.now(UTC)).id
        for page in pages.paginate(Bucket=running.stack.inbox, Prefix=prefix)
        for version in page["Versions"]
    }


def current(running: Running, prefix: str) -> dict[str, str]:
    """Returns the current version of each object."""
    pages = client(running.config, "s3").get_paginator("list_object_versions")
    return {
        version["Key"]: version["VersionId"]
        for page in pages.paginate(Bucket=running.stack.inbox, Prefix=prefix)
        for version in page["Versions"]
        if version["IsLatest"]
    }


def objects(running: Running, prefix: str) -> Counter[str]:
    pages = client(running.config, "s3").get_paginator("list_objects_v2")
    return Counter(
        found["Key"]
        for page in pages.paginate(Bucket=running.stack.results, Prefix=prefix)
        for found in page.get("Contents", ())
    )
