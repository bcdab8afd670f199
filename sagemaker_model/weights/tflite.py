"""Converts MediaPipe's TensorFlow Lite files to ONNX, so that ONNX Runtime runs them.

OpenCV's dnn reads TensorFlow Lite, but lacks two of the operators: DENSIFY, which expands weights stored without their
zeros, and DEPTH_TO_SPACE. LiteRT would add 59 MB to the image. The conversion takes less than 0.2 s for a file and
supports the operators of these files, listed in `_Converter.NODES`.

A TensorFlow Lite file is a flatbuffer: its tables refer to their parts by offsets. The numbers of the fields and
operators are those of TensorFlow Lite's schema.fbs, version 3; the numbers of ONNX's fields are those of onnx.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

IDENTIFIER = b"TFL3"

IR_VERSION, OPSET = 8, 17
"""Versions of ONNX. In opset 17 pads are an input of Pad and Resize has the modes of TensorFlow Lite."""

DTYPES: dict[int, np.dtype[Any]] = {0: np.dtype("<f4"), 1: np.dtype("<f2"), 2: np.dtype("<i4")}
"""Dtype of a tensor by its number in TensorType."""

INDEX_DTYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<i4"), 2: np.dtype("<u2"), 3: np.dtype("u1")}
"""Dtype of the indices of a sparse tensor by their number in SparseIndexVector."""

ONNX_DTYPES = {np.dtype(np.float32): 1, np.dtype(np.int64): 7}
"""Number of a dtype in TensorProto.DataType."""

RELU, RELU6 = 1, 3
"""Numbers of the activations in ActivationFunctionType that the files have; 0 is none."""

PADDINGS = {0: b"SAME_UPPER", 1: b"VALID"}
"""Attribute auto_pad by the number in Padding."""

Values = NDArray[Any]
Attribute = int | bytes | Sequence[int]


class NotSupported(ValueError):
    """The file is damaged, not a TensorFlow Lite graph, or has an operator that the conversion does not support."""


def to_onnx(data: bytes) -> bytes:
    """Returns the network of a .tflite file as an ONNX file.

    The input is 1x3xHxW float32 instead of TensorFlow Lite's 1xHxWx3. The outputs have TensorFlow Lite's order; one of
    four axes is 1xCxHxW. Weights become float32. Raises NotSupported.
    """
    if data[4:8] != IDENTIFIER:
        raise NotSupported("the file identifier TFL3 is missing")
    try:
        model = _Table(data, _indirect(data, 0))
        return _Converter(model).model()
    except (struct.error, LookupError, ValueError, OverflowError) as error:
        raise NotSupported(f"the graph cannot be converted: {error!r}") from error


class _Converter:
    """One conversion. Tensors of four axes have the order 1xCxHxW in ONNX, others TensorFlow Lite's."""

    def __init__(self, model: _Table) -> None:
        self.operators = [max(code.integer(0, "b"), code.integer(3, "<i")) for code in model.tables(1)]
        self.buffers = list(model.tables(4))
        (self.graph,) = model.tables(2)
        self.tensors = list(self.graph.tables(0))
        self.constants: dict[int, Values] = {}  # values of a tensor in TensorFlow Lite's order of axes
        self.nodes: list[bytes] = []
        self.initializers: list[bytes] = []

    def model(self) -> bytes:
        for operator in self.graph.tables(3):
            kind = self.operators[operator.integer(0, "<I")]
            if kind not in self.NODES:
                raise NotSupported(f"the operator {kind} is not supported")
            inputs, outputs = operator.vector(1, "<i4").tolist(), operator.vector(2, "<i4").tolist()
            self.NODES[kind](self, operator, inputs, outputs[0])
        inputs, outputs = self.graph.vector(1, "<i4").tolist(), self.graph.vector(2, "<i4").tolist()
        graph = [
            *(_bytes(1, node) for node in self.nodes),
            _bytes(2, b"tflite"),
            *(_bytes(5, initializer) for initializer in self.initializers),
            *(_bytes(11, self._declared(index)) for index in inputs),
            *(_bytes(12, self._declared(index)) for index in outputs),
        ]
        return _integer(1, IR_VERSION) + _bytes(7, b"".join(graph)) + _bytes(8, _integer(2, OPSET))

    # Operators: each method converts one, with the indices of its inputs and of its output.

    def _constant(self, _operator: _Table, inputs: list[int], output: int) -> None:
        """DENSIFY and DEQUANTIZE of weights: `_values` expands and widens them."""
        self.constants[output] = self._values(inputs[0])

    def _conv(self, operator: _Table, inputs: list[int], output: int) -> None:
        kernel = self._values(inputs[1])  # output channels, height, width, input channels
        self._convolution(operator, inputs, output, kernel.transpose(0, 3, 1, 2), group=1, activation=3)

    def _depthwise(self, operator: _Table, inputs: list[int], output: int) -> None:
        kernel = self._values(inputs[1])  # 1, height, width, channels
        self._convolution(
            operator, inputs, output, kernel.transpose(3, 0, 1, 2), group=kernel.shape[3], activation=4
        )  # fmt: skip

    def _convolution(
        self, operator: _Table, inputs: list[int], output: int, kernel: Values, *, group: int, activation: int
    ) -> None:
        options = operator.table(4)
        names = [_name(inputs[0]), self._initializer(f"{output}k", kernel.astype(np.float32))]
        names.append(self._initializer(f"{output}b", self._values(inputs[2]).astype(np.float32)))
        attributes: dict[str, Attribute] = {
            "group": group,
            "strides": [options.integer(2, "<i"), options.integer(1, "<i")],
            "auto_pad": PADDINGS[options.integer(0, "b")],
        }
        self._activated("Conv", names, output, attributes, options.integer(activation, "b"))

    def _max_pool(self, operator: _Table, inputs: list[int], output: int) -> None:
        options = operator.table(4)
        attributes: dict[str, Attribute] = {
            "kernel_shape": [options.integer(4, "<i"), options.integer(3, "<i")],
            "strides": [options.integer(2, "<i"), options.integer(1, "<i")],
            "auto_pad": PADDINGS[options.integer(0, "b")],
        }
        self._activated("MaxPool", [_name(inputs[0])], output, attributes, options.integer(5, "b"))

    def _add(self, operator: _Table, inputs: list[int], output: int) -> None:
        self._activated("Add", [_name(one) for one in inputs], output, {}, operator.table(4).integer(0, "b"))

    def _pad(self, _operator: _Table, inputs: list[int], output: int) -> None:
        pads = self._values(inputs[1])[[0, 3, 1, 2]].T.astype(np.int64).ravel()  # all starts, then all ends
        self._node("Pad", [_name(inputs[0]), self._initializer(f"{output}p", pads)], output)

    def _resize(self, operator: _Table, inputs: list[int], output: int) -> None:
        options = operator.table(4)
        if options.integer(2, "b"):
            mode = b"align_corners"
        else:
            mode = b"half_pixel" if options.integer(3, "b") else b"asymmetric"
        sizes = self._initializer(f"{output}s", np.array(self._shape(output), np.int64))
        attributes: dict[str, Attribute] = {"mode": b"linear", "coordinate_transformation_mode": mode}
        self._node("Resize", [_name(inputs[0]), "", "", sizes], output, attributes)

    def _depth_to_space(self, operator: _Table, inputs: list[int], output: int) -> None:
        attributes: dict[str, Attribute] = {"blocksize": operator.table(4).integer(0, "<i"), "mode": b"DCR"}
        self._node("DepthToSpace", [_name(inputs[0])], output, attributes)

    def _reshape(self, _operator: _Table, inputs: list[int], output: int) -> None:
        name = _name(inputs[0])
        if len(self._shape(output)) == 4:
            raise NotSupported("RESHAPE to four axes is not supported")
        if len(self._shape(inputs[0])) == 4:
            self.nodes.append(_node("Transpose", [name], f"{output}t", {"perm": [0, 2, 3, 1]}))
            name = f"{output}t"
        shape = self._initializer(f"{output}s", np.array(self._shape(output), np.int64))
        self._node("Reshape", [name, shape], output)

    def _concatenation(self, operator: _Table, inputs: list[int], output: int) -> None:
        if len(self._shape(output)) == 4:
            raise NotSupported("CONCATENATION of four axes is not supported")
        axis = operator.table(4).integer(0, "<i")
        self._node("Concat", [_name(one) for one in inputs], output, {"axis": axis})

    def _relu(self, _operator: _Table, inputs: list[int], output: int) -> None:
        self._node("Relu", [_name(inputs[0])], output)

    def _sigmoid(self, _operator: _Table, inputs: list[int], output: int) -> None:
        self._node("Sigmoid", [_name(inputs[0])], output)

    NODES: ClassVar[Mapping[int, Callable[[_Converter, _Table, list[int], int], None]]] = {
        0: _add,
        2: _concatenation,
        3: _conv,
        4: _depthwise,
        5: _depth_to_space,
        6: _constant,  # DEQUANTIZE
        14: _sigmoid,  # LOGISTIC
        17: _max_pool,
        19: _relu,
        22: _reshape,
        23: _resize,  # RESIZE_BILINEAR
        34: _pad,
        124: _constant,  # DENSIFY
    }
    """Conversion of an operator by its number in BuiltinOperator."""

    def _activated(
        self, kind: str, inputs: list[str], output: int, attributes: Mapping[str, Attribute], activation: int
    ) -> None:
        """Adds a node and the activation that TensorFlow Lite fuses with it."""
        if activation == 0:
            self._node(kind, inputs, output, attributes)
            return
        self.nodes.append(_node(kind, inputs, f"{output}a", attributes))
        if activation == RELU:
            self._node("Relu", [f"{output}a"], output)
        elif activation == RELU6:
            bounds = [self._initializer(f"{output}{bound}", np.array(bound, np.float32)) for bound in (0, 6)]
            self._node("Clip", [f"{output}a", *bounds], output)
        else:
            raise NotSupported(f"the activation {activation} is not supported")

    def _node(
        self, kind: str, inputs: list[str], output: int, attributes: Mapping[str, Attribute] | None = None
    ) -> None:
        self.nodes.append(_node(kind, inputs, _name(output), attributes or {}))

    def _initializer(self, name: str, values: Values) -> str:
        """Adds a constant and returns its name."""
        values = np.ascontiguousarray(values)
        dims = b"".join(_integer(1, size) for size in values.shape)
        kind = _integer(2, ONNX_DTYPES[values.dtype])
        self.initializers.append(dims + kind + _bytes(8, name.encode()) + _bytes(9, values.tobytes()))
        return name

    def _declared(self, index: int) -> bytes:
        """The ValueInfoProto of an input or output of the graph."""
        dims = b"".join(_bytes(1, _integer(1, size)) for size in self._shape(index))
        return _bytes(1, _name(index).encode()) + _bytes(2, _bytes(1, _integer(1, 1) + _bytes(2, dims)))

    def _shape(self, index: int) -> list[int]:
        """Shape of a tensor in ONNX's order of axes."""
        shape = self.tensors[index].vector(0, "<i4").tolist()
        return [shape[axis] for axis in (0, 3, 1, 2)] if len(shape) == 4 else shape

    def _values(self, index: int) -> Values:
        """Values of a constant tensor in TensorFlow Lite's order of axes."""
        if index in self.constants:
            return self.constants[index]
        tensor = self.tensors[index]
        shape = tensor.vector(0, "<i4").tolist()
        values = self.buffers[tensor.integer(2, "<I")].vector(0, "u1").view(DTYPES[tensor.integer(1, "b")])
        return (_expanded(values, shape, tensor.table(6)) if tensor.has(6) else values).reshape(shape)


def _expanded(values: Values, shape: list[int], sparsity: _Table) -> Values:
    """The dense values of a sparse tensor whose last axis is stored as compressed rows. Raises NotSupported."""
    axes = list(sparsity.tables(2))
    order = sparsity.vector(0, "<i4").tolist()
    if [axis.integer(0, "b") for axis in axes] != [0] * (len(shape) - 1) + [1] or order != [*range(len(shape))]:
        raise NotSupported("a sparse tensor has another sparse axis than the last, or blocks")
    starts, columns = (
        axes[-1].table(field).vector(0, INDEX_DTYPES[axes[-1].integer(field - 1, "B")]).astype(int) for field in (3, 5)
    )
    dense = np.zeros((int(np.prod(shape[:-1])), shape[-1]), values.dtype)
    dense[np.repeat(np.arange(len(dense)), np.diff(starts)), columns] = values
    return dense


class _Table:
    """A table of the flatbuffer: its fields by number. start: offset of the table in the file."""

    def __init__(self, file: bytes, start: int) -> None:
        self.file, self.start = file, start

    def _position(self, field: int) -> int | None:
        """Offset of the field in the file; None if the table has its default."""
        vtable = self.start - int(struct.unpack_from("<i", self.file, self.start)[0])
        (size,) = struct.unpack_from("<H", self.file, vtable)
        entry = 4 + 2 * field
        (offset,) = struct.unpack_from("<H", self.file, vtable + entry) if entry < size else (0,)
        return self.start + int(offset) if offset else None

    def has(self, field: int) -> bool:
        return self._position(field) is not None

    def integer(self, field: int, form: str) -> int:
        """An integer of the format `form` of `struct`; 0 for the default."""
        position = self._position(field)
        return 0 if position is None else int(struct.unpack_from(form, self.file, position)[0])

    def table(self, field: int) -> _Table:
        return _Table(self.file, self._target(field))

    def tables(self, field: int) -> Iterator[_Table]:
        """The tables of a vector."""
        start = self._target(field)
        for number in range(int(struct.unpack_from("<I", self.file, start)[0])):
            yield _Table(self.file, _indirect(self.file, start + 4 + 4 * number))

    def vector(self, field: int, dtype: str | np.dtype[Any]) -> Values:
        """The numbers of a vector; an empty one for the default."""
        if not self.has(field):
            return np.empty(0, dtype)
        start = self._target(field)
        return np.frombuffer(self.file, dtype, int(struct.unpack_from("<I", self.file, start)[0]), start + 4)

    def _target(self, field: int) -> int:
        """Offset of the part that the field refers to."""
        position = self._position(field)
        if position is None:
            raise LookupError(f"field {field} is missing")
        return _indirect(self.file, position)


def _indirect(file: bytes, position: int) -> int:
    """The offset in the file that the relative offset at `position` refers to."""
    return position + int(struct.unpack_from("<I", file, position)[0])


# Protocol buffers


def _name(index: int) -> str:
    """Name in ONNX of a tensor."""
    return f"t{index}"


def _node(kind: str, inputs: Sequence[str], output: str, attributes: Mapping[str, Attribute]) -> bytes:
    """A NodeProto."""
    names = b"".join(_bytes(1, name.encode()) for name in inputs) + _bytes(2, output.encode())
    return names + _bytes(4, kind.encode()) + b"".join(_bytes(5, _attribute(*item)) for item in attributes.items())


def _attribute(name: str, value: Attribute) -> bytes:
    """An AttributeProto: an integer, a text or a list of integers."""
    if isinstance(value, int):
        content = _integer(3, value) + _integer(20, 2)
    elif isinstance(value, bytes):
        content = _bytes(4, value) + _integer(20, 3)
    else:
        content = b"".join(_integer(8, one) for one in value) + _integer(20, 7)
    return _bytes(1, name.encode()) + content


def _integer(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    """A non-negative integer in groups of seven bits, the lowest first."""
    groups = []
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])
