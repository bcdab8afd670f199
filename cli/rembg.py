"""The verbs of rembg's command with its flags and file names, for `alias rembg=maskdrop`.

i: a file. p: a folder. b: frames. s: the HTTP server.

The flags -a, -af, -ab, -ae, -ppm and -dc have no effect, as in the HTTP dialect of rembg: results always have soft
edges without the colour of the background.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Annotated

import cv2
import numpy as np
import typer

from cli.batch import STDIN, Photo, Record, cores, images_below
from cli.engines import Weights, weights_for
from cli.images import process
from cli.processing import Processor, load_processor
from cli.results import Target, Work, watched, write_file
from cli.terminal import FAILED, INTERRUPTED, UsageError, messages, print_errors
from maskdrop.options import Options
from sagemaker_model.weights.store import NotInstalled

STOP = "stop.txt"
"""A file of this name in the watched folder ends `p -w`, as in rembg."""

HOMES = {"REMBG_HOME": ".rembg", "U2NET_HOME": ".u2net"}
"""Environment variable with a folder of rembg's models -> its default below the home folder.
Source: sessions/base.py of rembg 2.0.86."""

Model = Annotated[
    str | None,
    typer.Option("-m", "--model", help="Model: the name of an engine.", show_default="auto; rembg's is bria-rmbg"),
]
NoEffect = Annotated[bool, typer.Option("-a", "--alpha-matting", help="No effect: edges are always soft.")]
Foreground = Annotated[int, typer.Option("-af", "--alpha-matting-foreground-threshold", help="No effect.")]
Background = Annotated[int, typer.Option("-ab", "--alpha-matting-background-threshold", help="No effect.")]
Erode = Annotated[int, typer.Option("-ae", "--alpha-matting-erode-size", help="No effect.")]
OnlyMask = Annotated[bool, typer.Option("-om", "--only-mask", help="Write the alpha matte, 8-bit grey.")]
Cleaned = Annotated[bool, typer.Option("-ppm", "--post-process-mask", help="No effect.")]
Decontaminate = Annotated[
    bool, typer.Option("-dc", "--decontaminate", help="No effect: the colour of the background is always removed.")
]
VitMatteFlag = Annotated[
    bool, typer.Option("-vm", "--vitmatte", help="Refine the edges by ViTMatte, where its weights are installed.")
]
Colour = Annotated[
    tuple[int, int, int, int],
    typer.Option("-bgc", "--bgcolor", metavar="R G B A", help="Background colour; alpha 0 for none."),
]
Extras = Annotated[
    str, typer.Option("-x", "--extras", metavar="JSON", help='Prompts of SAM: {"sam_prompt": [...]} (default: none).')
]


def i(
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", help="Image file, or - for standard input.", allow_dash=True)
    ] = STDIN,
    output: Annotated[
        Path | None,
        typer.Argument(
            metavar="OUTPUT",
            help="PNG file, or - for standard output (default: that, or NAME.out.png in a terminal).",
            allow_dash=True,
        ),
    ] = None,
    model: Model = None,
    alpha_matting: NoEffect = False,
    foreground_threshold: Foreground = 240,
    background_threshold: Background = 10,
    erode_size: Erode = 10,
    only_mask: OnlyMask = False,
    post_process_mask: Cleaned = False,
    decontaminate: Decontaminate = False,
    vitmatte: VitMatteFlag = False,
    bgcolor: Colour = (0, 0, 0, 0),
    extras: Extras = "",
    folder: Weights = None,
) -> None:
    """Cut out the subject of a file, as `rembg i` does."""
    with print_errors():
        options = options_of(model, bgcolor, extras, only_mask=only_mask, vitmatte=vitmatte)
        if output is None:
            terminal = sys.stdin.isatty() and sys.stdout.isatty()
            output = source.with_suffix(".out.png") if terminal and source != STDIN else STDIN
        target = Target(stdout=True) if output == STDIN else Target(file=output)
        _process(Work([Photo(source, Path(source.name))], target, "png"), options, folder)


def p(
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", exists=True, file_okay=False, help="Folder with its subfolders.")
    ],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", file_okay=False, help="Folder for the results NAME.png.")],
    model: Model = None,
    alpha_matting: NoEffect = False,
    foreground_threshold: Foreground = 240,
    background_threshold: Background = 10,
    erode_size: Erode = 10,
    only_mask: OnlyMask = False,
    post_process_mask: Cleaned = False,
    decontaminate: Decontaminate = False,
    vitmatte: VitMatteFlag = False,
    watch: Annotated[
        bool, typer.Option("-w", "--watch", help=f"Watch the folder until Ctrl-C or a file {STOP} in it.")
    ] = False,
    delete_input: Annotated[
        bool, typer.Option("-d", "--delete_input", help="Delete each photo when its result is complete.")
    ] = False,
    accept_usage_cost: Annotated[
        bool, typer.Option("--accept-usage-cost", help="No effect: no engine is paid by image.")
    ] = False,
    bgcolor: Colour = (0, 0, 0, 0),
    extras: Extras = "",
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Images processed at the same time.", show_default="one for each CPU core"),
    ] = None,
    folder: Weights = None,
) -> None:
    """Cut out the subjects of a folder, as `rembg p` does. Skips photos with a result; exits 1 if a photo fails."""
    with print_errors():
        options = options_of(model, bgcolor, extras, only_mask=only_mask, vitmatte=vitmatte)
        photos = [_flat(path) for path in images_below(source, output)]
        work = Work(photos, Target(folder=output), "png")
        work.check()

        def ended(record: Record) -> None:
            if delete_input and record["state"] != "failed":
                Path(record["photo"]).unlink(missing_ok=True)

        arriving = _until_stopped(source, work) if watch else ()
        _process(work, options, folder, workers, arriving, ended)


def s(
    port: Annotated[int, typer.Option("-p", "--port", help="TCP port.")] = 7000,
    host: Annotated[
        str | None, typer.Option("-h", "--host", help="IP address to listen on.", show_default="127.0.0.1")
    ] = None,
    log_level: Annotated[str, typer.Option("-l", "--log_level", help="info logs every request.")] = "warning",
    threads: Annotated[
        int | None, typer.Option("-t", "--threads", help="Images processed at once.", show_default="one for each core")
    ] = None,
    no_ui: Annotated[bool, typer.Option("--no-ui", help="No effect.")] = False,
    folder: Weights = None,
) -> None:
    """Serve POST and GET /api/remove without keys, as `rembg s` does, and the other routes of `serve`. Without -h, only
    this machine can reach it; rembg listens on 0.0.0.0."""
    from cli.serve import serve

    serve(
        host=host, port=port, no_auth=True, anyone=host is not None, folder=folder, workers=threads,
        verbose=log_level.lower() in ("info", "debug", "trace"),
    )  # fmt: skip


def b(
    image_width: Annotated[int, typer.Argument(min=1, help="Width of the frames in pixels.")],
    image_height: Annotated[int, typer.Argument(min=1, help="Height of the frames in pixels.")],
    output_specifier: Annotated[
        str,
        typer.Option(
            "-o",
            "--output_specifier",
            help="Files for the results, such as output-%d.png, numbered from 0.",
            show_default="PNG files one after the other to standard output",
        ),
    ] = "",
    model: Model = None,
    alpha_matting: NoEffect = False,
    foreground_threshold: Foreground = 240,
    background_threshold: Background = 10,
    erode_size: Erode = 10,
    only_mask: OnlyMask = False,
    post_process_mask: Cleaned = False,
    decontaminate: Decontaminate = False,
    vitmatte: VitMatteFlag = False,
    bgcolor: Colour = (0, 0, 0, 0),
    extras: Extras = "",
    folder: Weights = None,
) -> None:
    """Cut out the subjects of RGB24 frames from standard input, as `rembg b` does. Example:
    ffmpeg -i video.mp4 -pix_fmt rgb24 -f rawvideo - | maskdrop b 1280 720 -o frames/%04d.png"""
    with print_errors():
        try:
            _ = output_specifier and output_specifier % 0
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"--output_specifier must contain one number such as %d; got {output_specifier}."
            ) from error
        options = options_of(model, bgcolor, extras, only_mask=only_mask, vitmatte=vitmatte)
        cv2.setNumThreads(1)  # the workers share the cores
        with _rembg_file(options.engine):
            processor = load_processor(options, weights_for(options.engine, folder), workers=cores())
        bytes_left = 0
        try:
            for number, png in enumerate(results_of(sys.stdin.buffer, image_width, image_height, processor, options)):
                if isinstance(png, int):
                    bytes_left = png
                elif output_specifier:
                    write_file(Path(output_specifier % number), png)
                else:
                    sys.stdout.buffer.write(png)
                    sys.stdout.buffer.flush()
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
    if bytes_left:
        frame = image_width * image_height * 3
        messages.print(f"The last frame has {bytes_left} of {frame} bytes: check the width and the height.")
        raise typer.Exit(FAILED)


def results_of(
    frames: IO[bytes], width: int, height: int, processor: Processor, options: Options
) -> Iterator[bytes | int]:
    """Yields the PNG file of each RGB24 frame in order; at the end the size of an incomplete frame, if there is one."""
    queued: deque[Future[bytes]] = deque()

    def result(frame: bytes) -> bytes:
        rgb = np.frombuffer(frame, np.uint8).reshape(height, width, 3)
        uncompressed = cv2.imencode(".png", rgb[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 0])[1]
        return processor.process(uncompressed.tobytes(), options).cutout.data

    with ThreadPoolExecutor(cores()) as pool:
        while len(frame := frames.read(width * height * 3)) == width * height * 3:
            queued.append(pool.submit(result, frame))
            if len(queued) > cores():
                yield queued.popleft().result()
        while queued:
            yield queued.popleft().result()
    if frame:
        yield len(frame)


def options_of(
    model: str | None, bgcolor: tuple[int, int, int, int], extras: str, *, only_mask: bool, vitmatte: bool
) -> Options:
    """Returns the options of rembg's flags. Raises what `lambdas.http.dialects.rembg.options_of` raises."""
    from lambdas.http.dialects import rembg  # with Powertools 0.2 s, which the other commands save

    fields = {"model": model or "", "om": str(only_mask), "extras": extras}
    if bgcolor[3]:
        fields["bgc"] = ",".join(map(str, bgcolor))
    options = rembg.options_of(fields)
    return replace(options, refine="vitmatte") if vitmatte else options


def _flat(path: Path) -> Photo:
    return Photo(path, Path(path.stem), listed=False)


def _until_stopped(folder: Path, work: Work) -> Iterator[Sequence[Photo]]:
    for photos in watched([folder], work):
        yield [_flat(photo.path) for photo in photos]
        if (folder / STOP).exists():
            (folder / STOP).unlink()
            return


def _process(
    work: Work,
    options: Options,
    folder: Path | None,
    workers: int | None = None,
    arriving: Iterable[Sequence[Photo]] = (),
    ended: Callable[[Record], None] = lambda _: None,
) -> None:
    with _rembg_file(options.engine):
        process(work, options, folder, workers, arriving, ended=ended, skipped="their result exists")


@contextmanager
def _rembg_file(engine: str) -> Iterator[None]:
    """Adds the file that rembg downloaded, and the command that imports it, to the error of missing weights."""
    try:
        yield
    except NotInstalled as error:
        folders = [Path(os.environ.get(name) or Path.home() / folder) for name, folder in HOMES.items()]
        found = [path for folder in folders for path in folder.rglob(f"{engine}.onnx")]
        if not found:
            raise
        raise NotInstalled(f"{error} rembg has its file: `maskdrop models import {engine} {found[0]}`.") from error
