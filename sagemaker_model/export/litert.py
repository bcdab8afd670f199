"""Script that converts torch programs to TensorFlow Lite and runs the files.

It runs in a virtual environment of its own (`make tflite`): LiteRT's converter pins older versions of packages than
this project uses. It imports no module of this project.

    python litert.py convert PROGRAM.pt2 OUT.tflite
    python litert.py run FILE.tflite IMAGES.npy MATTES.npz
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np


def convert(program: str, out: str) -> None:
    """Converts a torch.export program from Nx3xHxW to Nx1xHxW to a .tflite file.

    The file's channels are last, as is usual on devices. Its sizes are those of the program's example input.
    """
    import litert_torch
    import torch

    exported = torch.export.load(program)
    (example,), _ = exported.example_inputs
    net = litert_torch.to_channel_last_io(exported.module(), args=[0], outputs=[0])
    litert_torch.convert(net, (example.permute(0, 2, 3, 1).contiguous(),)).export(out)


def run(file: str, images: str, mattes: str) -> None:
    """Runs a .tflite file on images Nx3xHxW float32; writes mattes Nx1xHxW and the milliseconds of each on one core."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(file, num_threads=1)
    interpreter.allocate_tensors()
    (model_input,), (model_output,) = interpreter.get_input_details(), interpreter.get_output_details()
    results, ms = [], []
    for image in np.load(images):
        interpreter.set_tensor(model_input["index"], np.ascontiguousarray(image.transpose(1, 2, 0)[None]))
        start = time.perf_counter()
        interpreter.invoke()
        ms.append((time.perf_counter() - start) * 1000)
        results.append(interpreter.get_tensor(model_output["index"])[0].transpose(2, 0, 1))
    np.savez(Path(mattes), mattes=np.stack(results), ms=np.array(ms))


if __name__ == "__main__":
    commands: dict[str, Callable[..., None]] = {"convert": convert, "run": run}
    commands[sys.argv[1]](*sys.argv[2:])
