"""Folders, several photos, standard input and output, resumption, and rembg's verbs, with a fake processor. The last
tests run the real command and interrupt it."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from cli import images, rembg
from cli.app import app
from cli.processing import Made
from local.config import ROOT
from maskdrop.errors import UnreadableImage
from maskdrop.job import Subject
from maskdrop.options import Options
from sagemaker_model.cutout import Cutout

Invoke = Callable[..., Result]

BROKEN = b"\xff\xd8\xff broken"


@dataclass
class FakeProcessor:
    """Returns the bytes of a photo as its result. BROKEN fails; `crashes` raises an unexpected error.

    seen: the photos processed. interrupt_after: number of photos after which the process gets SIGINT. drops: file that
    another program writes while a photo is processed, by the number of photos.
    """

    seen: list[bytes] = field(default_factory=list)
    options: list[Options] = field(default_factory=list)
    workers: list[int] = field(default_factory=list)
    interrupt_after: int = 0
    drops: dict[int, Path] = field(default_factory=dict)
    crashes: bytes = b"none"

    def process(self, data: bytes, options: Options, background: bytes = b"") -> Made:
        self.seen.append(data)
        self.options.append(options)
        if path := self.drops.get(len(self.seen)):
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(path.name.encode())
        if len(self.seen) == self.interrupt_after:
            os.kill(os.getpid(), signal.SIGINT)
        if data == BROKEN:
            raise UnreadableImage("The file is broken.")
        if data == self.crashes:
            raise RuntimeError("a bug")
        subject = Subject((0, 0, 4, 4), 1.0, 1.0, kind="thing", engine=options.engine, needs_review=False)
        return Made(Cutout(b"cut " + data, options.extension, 4, 4, (4, 4), subject, subject.box, (), {"predict": 1.0}))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeProcessor:
    processor = FakeProcessor()

    def load(options: Options, folder: Path, **settings: Any) -> FakeProcessor:
        processor.workers.append(settings["workers"])
        return processor

    monkeypatch.setattr(images, "load_processor", load)
    monkeypatch.setattr(rembg, "load_processor", load)
    return processor


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of three photos, one of them in a subfolder, and other files. Its parent is the current folder."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    for name in ("a.jpg", "b.PNG", "more/a.jpg", ".a.jpg", ".hidden/c.jpg", "notes.txt"):
        (folder / name).write_bytes(name.encode())
    monkeypatch.chdir(tmp_path)
    return folder


def invoke(*words: object, stdin: bytes | None = None) -> Result:
    return CliRunner(env={"COLUMNS": "300"}).invoke(app, list(map(str, words)), input=stdin)


def files(folder: str) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


def states(result: Result) -> dict[str, str]:
    return {record["photo"]: record["state"] for record in map(json.loads, result.stdout.splitlines())}


def test_a_folder_is_processed_with_its_subfolders_and_without_hidden_and_other_files(
    photos: Path, fake: FakeProcessor
) -> None:
    result = invoke("cutout", "photos", "-o", "out")
    assert result.exit_code == 0, result.output
    assert files("out") == ["a.jpg.png", "b.PNG.png", "more/a.jpg.png"]
    assert Path("out/more/a.jpg.png").read_bytes() == b"cut more/a.jpg"
    assert "3 done" in result.output


def test_a_second_run_skips_photos_with_a_result_that_is_not_older(photos: Path, fake: FakeProcessor) -> None:
    invoke("cutout", "photos", "-o", "out")
    Path("out/b.PNG.png").unlink()
    os.utime("out/a.jpg.png", (1, 1))
    second = invoke("cutout", "photos", "-o", "out", "--json")
    assert states(second) == {"photos/a.jpg": "done", "photos/b.PNG": "done", "photos/more/a.jpg": "skipped"}
    third = invoke("cutout", "photos", "-o", "out", "--overwrite", "--json")
    assert set(states(third).values()) == {"done"}


def test_one_named_photo_is_always_processed(photos: Path, fake: FakeProcessor) -> None:
    for _ in range(2):
        assert invoke("mask", "photos/a.jpg", "-o", "out").exit_code == 0
    assert len(fake.seen) == 2


def test_the_results_in_the_folder_of_the_photos_are_no_photos(photos: Path, fake: FakeProcessor) -> None:
    for _ in range(2):
        assert invoke("cutout", "photos", "-o", "photos/out").exit_code == 0
    assert len(fake.seen) == 3


def test_failures_are_listed_in_the_summary_and_in_failed_csv_until_a_run_without_failures(
    photos: Path, fake: FakeProcessor
) -> None:
    (photos / "c.jpg").write_bytes(BROKEN)
    first = invoke("cutout", "photos", "-o", "out")
    assert (first.exit_code, "3 done, 1 failed" in first.output) == (1, True)
    with Path("out/failed.csv").open() as file:
        assert [*csv.DictReader(file)] == [
            {"photo": "photos/c.jpg", "code": "unreadable_picture", "message": "The file is broken."}
        ]
    (photos / "c.jpg").write_bytes(b"mended")
    second = invoke("cutout", "photos", "-o", "out")
    assert (second.exit_code, "1 done, 3 skipped" in second.output) == (0, True)
    assert "failed.csv" not in files("out")


def test_an_unexpected_error_fails_one_photo_only(photos: Path, fake: FakeProcessor) -> None:
    fake.crashes = b"b.PNG"
    result = invoke("cutout", "photos", "-o", "out", "--json")
    assert (result.exit_code, [*states(result).values()].count("done")) == (1, 2)
    assert "RuntimeError: a bug" in result.stdout


def test_sigint_ends_with_130_and_a_summary_and_the_next_run_continues(photos: Path, fake: FakeProcessor) -> None:
    for number in range(20):
        (photos / f"{number}.jpg").write_bytes(b"%d" % number)
    fake.interrupt_after = 4
    first = invoke("cutout", "photos", "-o", "out", "--workers", "1")
    assert first.exit_code == 130
    assert "not processed" in first.output
    assert "Repeat the command to continue." in first.output
    done = len(files("out"))
    assert 0 < done < 23
    second = invoke("cutout", "photos", "-o", "out", "--workers", "1")
    assert (second.exit_code, f"{23 - done} done, {done} skipped" in second.output) == (0, True)
    assert len(fake.seen) == 23


def test_an_incomplete_write_leaves_no_file_that_counts_as_done(
    photos: Path, fake: FakeProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[:2])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        assert invoke("cutout", "photos", "-o", "out").exit_code == 1
    assert files("out") == ["failed.csv"]
    assert "3 done" in invoke("cutout", "photos", "-o", "out").output


def test_standard_input_gives_standard_output(photos: Path, fake: FakeProcessor) -> None:
    result = invoke("cutout", "-", stdin=b"photo")
    assert (result.exit_code, result.stdout_bytes) == (0, b"cut photo")
    written = invoke("cutout", "-", "-o", "out.webp", stdin=b"photo")
    assert (written.exit_code, Path("out.webp").read_bytes()) == (0, b"cut photo")
    assert fake.options[-1].output.format == "webp"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("cutout", "photos", "-o", "-"), "--out must be a folder for several photos"),
        (("cutout", "photos", "-o", "x.png"), "--out must be a folder for several photos"),
        (("cutout", "photos/a.jpg", "photos/more/a.jpg"), "Several photos have the result results/a.jpg.png"),
        (
            ("cutout", "photos/a.jpg", "-o", "photos/notes.txt"),
            "--out must be a folder, a file with one of the suffixes",
        ),
        (("cutout", "photos/b.PNG", "-o", "photos/b.PNG"), "--out must not be the photo itself"),
        (("cutout", "photos/a.jpg", "--watch"), "--watch needs folders"),
        (("cutout", "photos/.hidden/none"), "source_missing"),
        (("cutout", "-", "--json"), "--json writes to standard output"),
        (("p", "photos", "out"), "Several photos have the result out/a.png"),
        (("b", "4", "4", "-o", "frame.png"), "--output_specifier must contain one number"),
    ],
)
def test_arguments_that_exclude_each_other_exit_2_before_a_photo_is_processed(
    photos: Path, fake: FakeProcessor, words: tuple[str, ...], message: str
) -> None:
    result = invoke(*words)
    assert (result.exit_code, message in result.output) == (1 if message == "source_missing" else 2, True), (
        result.output
    )
    assert fake.seen == []


def test_the_number_of_workers_is_that_of_the_cores_and_at_most_that_of_the_photos(
    photos: Path, fake: FakeProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "cores", lambda: 2)
    for words in (("photos",), ("photos/a.jpg",), ("photos", "--workers", "9")):
        invoke("cutout", *words, "-o", "out", "--overwrite")
    assert fake.workers == [2, 1, 3]


def test_new_and_changed_photos_of_a_watched_folder_are_processed_until_sigint(
    photos: Path, fake: FakeProcessor
) -> None:
    fake.drops = {1: photos / "new" / "d.jpg", 4: photos / "a.jpg"}
    fake.interrupt_after = 5
    result = invoke("cutout", "photos", "-o", "photos/out", "--watch", "--workers", "1")
    assert (result.exit_code, "5 done" in result.output) == (130, True), result.output
    assert fake.seen == [b"a.jpg", b"b.PNG", b"more/a.jpg", b"d.jpg", b"a.jpg"]
    assert Path("photos/out/new/d.jpg.png").read_bytes() == b"cut d.jpg"


# The verbs of rembg


def test_p_watches_until_the_file_stop_txt(photos: Path, fake: FakeProcessor) -> None:
    (photos / "more" / "a.jpg").rename(photos / "more" / "c.jpg")
    fake.drops = {3: photos / "d.jpg", 4: photos / "stop.txt"}
    assert invoke("p", "-w", "photos", "out", "--workers", "1").exit_code == 0
    assert files("out") == ["a.png", "b.png", "c.png", "d.png"]
    assert not (photos / "stop.txt").exists()


def test_p_writes_the_names_of_rembg_and_deletes_photos_with_a_result(photos: Path, fake: FakeProcessor) -> None:
    (photos / "more" / "a.jpg").rename(photos / "more" / "d.e.webp")
    (photos / "c.jpg").write_bytes(BROKEN)
    result = invoke("p", "-d", "photos", "out")
    assert result.exit_code == 1
    assert files("out") == ["a.png", "b.png", "d.e.png", "failed.csv"]
    assert files("photos") == [".a.jpg", ".hidden/c.jpg", "c.jpg", "notes.txt"]


def test_i_reads_and_writes_files_and_pipes_with_the_options_of_rembg(photos: Path, fake: FakeProcessor) -> None:
    assert invoke("i", "-om", "photos/a.jpg", "x.bin").exit_code == 0
    assert Path("x.bin").read_bytes() == b"cut a.jpg"
    flags = ("-m", "u2netp", "-a", "-af", "250", "-ab", "5", "-ae", "3", "-ppm", "-dc", "-vm", "-bgc", 255, 0, 0, 128)
    result = invoke("i", *flags, stdin=b"photo")
    assert (result.exit_code, result.stdout_bytes) == (0, b"cut photo")
    matte, cutout = (options.output for options in fake.options)
    assert (matte.channels, matte.background) == ("alpha", None)
    assert (str(cutout.background), fake.options[1].engine, fake.options[1].refine) == (
        "#ff000080",
        "u2netp",
        "vitmatte",
    )


def test_b_cuts_out_frames_in_order_and_reports_an_incomplete_one(photos: Path, fake: FakeProcessor) -> None:
    frames = b"".join(bytes([number]) * 48 for number in range(5))
    result = invoke("b", 4, 4, "-o", "frames/%02d.png", stdin=frames)
    assert result.exit_code == 0, result.output
    assert files("frames") == [f"{number:02}.png" for number in range(5)]
    for number in range(5):
        with Image.open(io.BytesIO(Path(f"frames/{number:02}.png").read_bytes().removeprefix(b"cut "))) as frame:
            assert (np.asarray(frame) == number).all()
    cut = invoke("b", 4, 4, stdin=frames[:-1])
    assert (cut.exit_code, cut.stdout_bytes.count(b"cut ")) == (1, 4)
    assert "47 of 48 bytes" in cut.stderr


def test_an_unknown_model_of_rembg_exits_2(photos: Path, fake: FakeProcessor) -> None:
    assert invoke("i", "-m", "none", "photos/a.jpg", "x.png").exit_code == 2


# The real command


@pytest.mark.parametrize(("stop", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_run_that_was_stopped_leaves_complete_results_and_is_continued(
    tmp_path: Path, stop: signal.Signals, status: int
) -> None:
    with Image.open(ROOT / "samples" / "default" / "astronaut.png") as sample:
        for number in range(12):
            (tmp_path / "photos").mkdir(exist_ok=True)
            sample.convert("RGB").rotate(number).save(tmp_path / "photos" / f"{number}.jpg")
    (tmp_path / "weights").mkdir()
    command = [sys.executable, "-m", "cli", "cutout", "photos", "-o", "out", "--engine", "portrait"]
    command += ["--folder", "weights", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout
        process.stdout.readline()
        process.send_signal(stop)
        process.stdout.read()
    assert process.returncode == status
    done = [path for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")]
    assert 0 < len(done) < 12
    for path in done:
        with Image.open(path) as result:
            result.load()
    second = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)  # noqa: S603
    found = [json.loads(line)["state"] for line in second.stdout.splitlines()]
    assert (found.count("skipped"), found.count("done")) == (len(done), 12 - len(done))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(f"{n}.jpg.png" for n in range(12))


LATIN = os.fsdecode(b"caf\xe9.jpg")


def test_names_that_are_not_utf_8_are_printed_and_listed(photos: Path, fake: FakeProcessor) -> None:
    (photos / LATIN).write_bytes(BROKEN)
    for output in ((), ("--json",)):
        result = invoke("cutout", "photos", "-o", "out", *output)
        assert (result.exit_code, r"caf\udce9.jpg" in result.stdout) == (1, True), result.output
    rows = Path("out/failed.csv").read_text(encoding="utf-8", errors="surrogateescape")
    assert rows.splitlines()[1].startswith(f"photos/{LATIN},unreadable_picture")
    lines = [line for line in result.stdout.splitlines() if line.startswith("{")]
    assert f"photos/{LATIN}" in [json.loads(line)["photo"] for line in lines]


def test_control_characters_of_names_do_not_reach_the_terminal(photos: Path, fake: FakeProcessor) -> None:
    name = "\x1b[31m\x9b[red].jpg"
    (photos / name).write_bytes(b"a")
    result = invoke("cutout", "photos", "-o", "out")
    assert (result.exit_code, r"\u001b[31m\u009b[red].jpg" in result.stdout) == (0, True), result.output
    assert not {"\x1b", "\x9b"} & set(result.output)
    again = invoke("cutout", "photos", "-o", "out", "--json")
    assert f"photos/{name}" in states(again)


def test_a_folder_of_results_that_cannot_be_written_fails_the_photos_and_not_the_run(
    photos: Path, fake: FakeProcessor
) -> None:
    Path("file").touch()
    result = invoke("cutout", "photos", "-o", "file/out")
    assert (result.exit_code, "3 failed" in result.output) == (1, True), result.output
    assert "failed.csv cannot be written: Not a directory." in result.output


def test_two_runs_may_write_the_same_folder(photos: Path, fake: FakeProcessor, monkeypatch: pytest.MonkeyPatch) -> None:
    def rename(path: Path, target: Path) -> Path:
        os.rename(path, target)  # noqa: PTH104  the other run, with the same temporary file
        return Path(path.rename(target))

    monkeypatch.setattr(Path, "replace", rename)
    result = invoke("cutout", "photos", "-o", "out")
    assert (result.exit_code, len(files("out"))) == (0, 3), result.output


def test_a_long_name_has_room_for_the_suffix_alone(photos: Path, fake: FakeProcessor) -> None:
    (photos / f"{'a' * 240}.jpg").write_bytes(b"a")
    assert invoke("cutout", "photos", "-o", "out").exit_code == 0


@pytest.mark.parametrize("stream", ["stdin", "stdout", "stderr"])
def test_a_closed_stream_is_an_empty_one(photos: Path, fake: FakeProcessor, stream: str) -> None:
    with CliRunner().isolation():
        setattr(sys, stream, None)
        assert runner_exit("cutout", "photos", "-o", "out") == 0
    assert len(files("out")) == 3


def runner_exit(*words: str) -> int:
    """Returns the exit status of a command that runs with the current streams."""
    try:
        app(words)
    except SystemExit as error:
        return int(error.code or 0)
    return 0
