"""From torch to TensorFlow Lite, and how its files run. This is run as a script, by the Python of an environment of its
own (`make tflite`): LiteRT's converter pins packages that the others need newer. It knows nothing of ours.

    python litert.py convert PROGRAM.pt2 OUT.tflite
    python litert.py run FILE.tflite PICTURES.npy MATTES.npz
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np


def convert(program: str, out: str) -> None:
    """The program is one of torch.export, from Nx3xHxW to Nx1xHxW; the file's channels are last, as devices have
    them. Its sizes are those that the program was made with."""
    import litert_torch
    import torch

    exported = torch.export.load(program)
    (example,), _ = exported.example_inputs
    net = litert_torch.to_channel_last_io(exported.module(), args=[0], outputs=[0])
    litert_torch.convert(net, (example.permute(0, 2, 3, 1).contiguous(),)).export(out)


def run(file: str, pictures: str, mattes: str) -> None:
    """Images: Nx3xHxW float32. Writes their mattes, Nx1xHxW, and the ms that each took on one core."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(file, num_threads=1)
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    found, ms = [], []
    for picture in np.load(pictures):
        interpreter.set_tensor(taken["index"], np.ascontiguousarray(picture.transpose(1, 2, 0)[None]))
        start = time.perf_counter()
        interpreter.invoke()
        ms.append((time.perf_counter() - start) * 1000)
        found.append(interpreter.get_tensor(given["index"])[0].transpose(2, 0, 1))
    np.savez(Path(mattes), mattes=np.stack(found), ms=np.array(ms))


if __name__ == "__main__":
    {"convert": convert, "run": run}[sys.argv[1]](*sys.argv[2:])
