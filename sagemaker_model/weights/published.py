"""MediaPipe's published selfie segmentation as weights of our network Portrait, which training starts from.

The file is a TensorFlow Lite graph: a list of operators, whose weights lie beside them. It has no names to go by, but
its convolutions come in the order of our layers, and every shape is compared.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sagemaker_model.nets.portrait import Portrait
from sagemaker_model.weights.checkpoints import MismatchedWeights, NotWeights, State
from sagemaker_model.weights.store import InvalidWeights, NotInstalled

AXES = {"CONV_2D": (0, 3, 1, 2), "DEPTHWISE_CONV_2D": (3, 0, 1, 2), "CUSTOM": (3, 0, 1, 2)}
"""From a kernel's axes there (height and width before the channels in) to torch's, by operator. The custom one is
MediaPipe's transposed convolution."""


def portrait_state(path: Path) -> State:
    """The entries of Portrait, float32, from a .tflite of its graph.

    Raises NotInstalled (the package tflite), InvalidWeights (there is no such file), NotWeights, MismatchedWeights.
    """
    try:
        tensors = _tensors(path.read_bytes())
    except OSError as error:
        raise InvalidWeights(f"{path} cannot be read ({error.strerror}).") from error
    except ModuleNotFoundError as error:
        raise NotInstalled(f"Reading {path} needs the package {error.name}: it is in the extra `train`.") from error
    except (struct.error, ValueError, LookupError, TypeError, AttributeError) as error:
        raise NotWeights(f"{path} is damaged or no graph of TensorFlow Lite ({error}).") from error
    wanted = Portrait().state_dict()
    shapes = [tuple(tensor.shape) for tensor in tensors]
    if shapes != [tuple(tensor.shape) for tensor in wanted.values()]:
        raise MismatchedWeights(f"{path} is the graph of another network: its convolutions are not those of Portrait.")
    return dict(zip(wanted, tensors, strict=True))


def _tensors(data: bytes) -> list[torch.Tensor]:
    """Kernel and bias of each convolution, in the order of the operators, with torch's axes."""
    import tflite

    if data[4:8] != b"TFL3":  # the format's mark: flatbuffers reads anything
        raise ValueError("its mark is missing")
    names = {number: name for name, number in vars(tflite.BuiltinOperator).items() if isinstance(number, int)}
    model = tflite.Model.GetRootAsModel(data, 0)
    graph = model.Subgraphs(0)
    stored: dict[int, int] = {}  # where the numbers of a tensor lie: half precision is widened by an operator
    found = []
    for operator in map(graph.Operators, range(graph.OperatorsLength())):
        code = model.OperatorCodes(operator.OpcodeIndex())
        name = names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]  # the old field has room for 127
        inputs = operator.InputsAsNumpy().tolist()
        if name == "DEQUANTIZE":
            stored[int(operator.Outputs(0))] = inputs[0]
        elif name in AXES:
            kernel, bias = (_numbers(model, graph, stored.get(number, number)) for number in inputs[1:])
            found += [torch.from_numpy(kernel.transpose(AXES[name]).copy()), torch.from_numpy(bias)]
    return found


def _numbers(model: Any, graph: Any, tensor: int) -> NDArray[np.float32]:
    import tflite

    described = graph.Tensors(tensor)
    kinds = {tflite.TensorType.FLOAT16: np.float16, tflite.TensorType.FLOAT32: np.float32}
    data = model.Buffers(described.Buffer()).DataAsNumpy()
    return data.view(kinds[described.Type()]).reshape(described.ShapeAsNumpy()).astype(np.float32)
