"""Reads MediaPipe's published selfie segmentation as weights of `nets.portrait.Portrait`, to start training from.

The file is a TensorFlow Lite graph: a list of operators and the buffers with their weights. Its tensors have no usable
names, but its convolutions are in the order of Portrait's layers, and every shape is compared.
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
"""Transposes of a kernel's axes from TensorFlow Lite's order (height, width, input channels) to torch's, by operator.
CUSTOM is MediaPipe's transposed convolution."""


def portrait_state(path: Path) -> State:
    """Portrait's state dict, float32, from a .tflite file of its graph.

    Raises NotInstalled (the package tflite), InvalidWeights (the file cannot be read), NotWeights, MismatchedWeights.
    """
    try:
        tensors = _tensors(path.read_bytes())
    except OSError as error:
        raise InvalidWeights(f"{path} cannot be read ({error.strerror}).") from error
    except ModuleNotFoundError as error:
        raise NotInstalled(f"Reading {path} needs the package {error.name}: install the extra `train`.") from error
    except (struct.error, ValueError, LookupError, TypeError, AttributeError) as error:
        raise NotWeights(f"{path} is damaged or not a TensorFlow Lite graph ({error}): fetch it again.") from error
    expected = Portrait().state_dict()
    shapes = [tuple(tensor.shape) for tensor in tensors]
    if shapes != [tuple(tensor.shape) for tensor in expected.values()]:
        raise MismatchedWeights(f"{path} is the graph of another network: its convolutions are not those of Portrait.")
    return dict(zip(expected, tensors, strict=True))


def _tensors(data: bytes) -> list[torch.Tensor]:
    """Kernel and bias of each convolution, in the order of the operators, with torch's axes."""
    import tflite

    if data[4:8] != b"TFL3":  # the file identifier, which the flatbuffers reader does not check
        raise ValueError("the file identifier TFL3 is missing")
    names = {number: name for name, number in vars(tflite.BuiltinOperator).items() if isinstance(number, int)}
    model = tflite.Model.GetRootAsModel(data, 0)
    graph = model.Subgraphs(0)
    stored: dict[int, int] = {}  # float16 source of each tensor that a DEQUANTIZE operator widens
    parameters = []
    for operator in map(graph.Operators, range(graph.OperatorsLength())):
        code = model.OperatorCodes(operator.OpcodeIndex())
        name = names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]  # the deprecated field ends at 127
        inputs = operator.InputsAsNumpy().tolist()
        if name == "DEQUANTIZE":
            stored[int(operator.Outputs(0))] = inputs[0]
        elif name in AXES:
            kernel, bias = (_values(model, graph, stored.get(index, index)) for index in inputs[1:])
            parameters += [torch.from_numpy(kernel.transpose(AXES[name]).copy()), torch.from_numpy(bias)]
    return parameters


def _values(model: Any, graph: Any, index: int) -> NDArray[np.float32]:
    """The values of a float16 or float32 tensor."""
    import tflite

    tensor = graph.Tensors(index)
    dtypes = {tflite.TensorType.FLOAT16: np.float16, tflite.TensorType.FLOAT32: np.float32}
    data = model.Buffers(tensor.Buffer()).DataAsNumpy()
    values: NDArray[np.float32] = data.view(dtypes[tensor.Type()]).reshape(tensor.ShapeAsNumpy()).astype(np.float32)
    return values
