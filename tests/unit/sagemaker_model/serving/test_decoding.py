import gc
import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskdrop.errors import DecodingLimit, Internal, MaskdropError, UnreadableImage, UnsupportedFormat
from sagemaker_model.imaging.pixels import Limits, decode
from sagemaker_model.serving.decoding import SLOW_S, Decoders
from tests import bombs

LIMITS = Limits(2**25, 50_000_000)
WITHOUT_CHECKS = Limits(2**25, 1_000_000_000)
"""Lets files pass that the checks before decoding refuse."""

MEMORY = 2**28


def picture(mode: str = "RGB", name: str = "PNG", size: tuple[int, int] = (300, 200)) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], len(mode)), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise, mode).save(buffer, name, dpi=(72, 72))
    return buffer.getvalue()


@pytest.fixture
def decoders() -> Iterator[Decoders]:
    pool = Decoders(1, 1, MEMORY, LIMITS)
    yield pool
    pool.close()


def children(pool: Decoders) -> list[int]:
    return [one.pid for one in (*pool._idle, *pool._busy)]


@pytest.mark.parametrize("file", [picture(), picture("RGBA"), picture(name="JPEG"), picture(size=(1, 1))])
def test_a_process_returns_the_same_image_as_decoding_in_this_process(decoders: Decoders, file: bytes) -> None:
    ours, theirs = decode(file, LIMITS), decoders.decode(file, LIMITS)
    assert np.array_equal(ours.rgb, theirs.rgb)
    assert str(ours.alpha) == str(theirs.alpha)
    assert (ours.dpi, ours.warnings) == (theirs.dpi, theirs.warnings)
    theirs.rgb[:] = 0  # writable, as every array of an image


def test_an_image_keeps_its_pixels_while_others_are_decoded(decoders: Decoders) -> None:
    first = decoders.decode(picture("RGBA"), LIMITS)
    others = [decoders.decode(picture(size=(400, 300 + number)), LIMITS) for number in range(3)]
    assert np.array_equal(first.rgb, decode(picture("RGBA"), LIMITS).rgb)
    assert len({*children(decoders)}) == 1 + len(others)


def test_a_process_is_used_again_when_its_image_is_freed(decoders: Decoders) -> None:
    used = set()
    for _ in range(5):
        image = decoders.decode(picture(), LIMITS)
        used |= {*children(decoders)}
        del image
        gc.collect()
    assert len(used) == 1


def test_an_error_of_the_decoder_is_raised_and_its_process_goes_on(decoders: Decoders) -> None:
    for data, error in [(b"text", UnsupportedFormat), (picture()[:200], UnreadableImage)]:
        with pytest.raises(error):
            decoders.decode(data, LIMITS)
        assert len(children(decoders)) == 1


def test_a_file_that_takes_too_long_ends_its_process_and_its_thread_lends_its_place() -> None:
    lent: list[int] = []
    pool = Decoders(1, SLOW_S + 1, MEMORY, LIMITS, lambda: lent.append(1))
    with pytest.raises(DecodingLimit, match="more than 3 s to decode") as caught:
        pool.decode(bombs.scans(side=4000, count=900), WITHOUT_CHECKS)
    assert not caught.value.retryable
    assert lent
    assert children(pool) == []
    assert pool.decode(picture(), LIMITS).rgb.shape == (200, 300, 3)
    pool.close()


def test_a_file_that_takes_too_much_memory_is_refused(decoders: Decoders) -> None:
    with pytest.raises(DecodingLimit, match="more memory"):
        decoders.decode(bombs.png(11_000, 9_000, bombs.zeros(11_001 * 9_000)), WITHOUT_CHECKS)
    assert decoders.decode(picture(), LIMITS).rgb.shape == (200, 300, 3)


def test_an_interlaced_png_of_49_megapixels_is_decoded_within_the_memory_of_one_file() -> None:
    pool = Decoders(1, 60, 2**30, LIMITS)
    assert pool.decode(bombs.interlaced(), LIMITS).rgb.shape == (760, 65_000, 3)
    pool.close()


@pytest.mark.parametrize(
    ("number", "error"),
    [(signal.SIGSEGV, UnreadableImage), (signal.SIGKILL, Internal), (signal.SIGXCPU, DecodingLimit)],
)
def test_a_process_that_ends_with_an_image_fails_only_that_image(
    decoders: Decoders, number: signal.Signals, error: type[MaskdropError]
) -> None:
    decoders.start()
    (pid,) = children(decoders)
    os.kill(pid, signal.SIGSTOP)

    def end() -> None:
        os.kill(pid, number)
        os.kill(pid, signal.SIGCONT)

    decoders._lend = end
    with pytest.raises(error):
        decoders.decode(picture(), LIMITS)
    assert decoders.decode(picture(), LIMITS).rgb.shape == (200, 300, 3)


def test_a_process_that_has_ended_while_idle_is_replaced(decoders: Decoders) -> None:
    decoders.start()
    (pid,) = children(decoders)
    process = decoders._idle[0]._process
    os.kill(pid, signal.SIGKILL)
    process.join()
    assert decoders.decode(picture(), LIMITS).rgb.shape == (200, 300, 3)
    assert pid not in children(decoders)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the limit")
def test_a_lower_limit_of_memory_from_outside_is_kept() -> None:
    program = (
        "import resource as r; from sagemaker_model.serving.decoding import _limit_memory;"
        "r.setrlimit(r.RLIMIT_DATA, (2**33, 2**33)); _limit_memory(2**40); print(*r.getrlimit(r.RLIMIT_DATA))"
    )
    command = [sys.executable, "-c", program]
    found = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - this program
    assert found.stdout.split() == [str(2**33), str(2**33)]


def test_a_closed_pool_leaves_no_process(decoders: Decoders) -> None:
    image = decoders.decode(picture(), LIMITS)
    decoders.start()
    processes = [one._process for one in (*decoders._idle, *decoders._busy)]
    decoders.close()
    for process in processes:
        process.join()
    assert not [pid for pid in children(decoders) if Path(f"/proc/{pid}").exists()]
    assert image.rgb.any()  # its memory stays


def test_a_long_path_of_the_temporary_folder_does_not_prevent_decoding(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    program = (
        "import sys; from sagemaker_model.serving.decoding import SLOW_S, Decoders, Limits;"
        "pool = Decoders(1, 1, 10**8, Limits(max_bytes=10**6, max_pixels=10**6));"
        "print(pool.decode(sys.stdin.buffer.read(), pool._limits).rgb.shape); pool.close()"
    )
    command, environment = [sys.executable, "-c", program], {**os.environ, "TMPDIR": str(folder)}
    found = subprocess.run(command, input=picture(), capture_output=True, env=environment, check=True)  # noqa: S603 - this program
    assert found.stdout.startswith(b"(")


def test_a_program_that_fails_with_a_running_pool_ends(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "from sagemaker_model.serving.decoding import Decoders, Limits\n"
        "if __name__ == '__main__':\n"
        "    pool = Decoders(1, 1, 10**8, Limits(max_bytes=10**6, max_pixels=10**6))\n"
        "    pool.start()\n"
        "    raise SystemExit(3)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, str(program)], env=environment, timeout=60, check=False).returncode == 3  # noqa: S603 - this program
