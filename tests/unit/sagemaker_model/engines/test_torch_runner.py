"""Batches through torch: on the CPU with a fake recorder of graphs, on a GPU with real graphs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

from sagemaker_model.engines.torch_runner import (  # noqa: E402
    FILLED_MIN,
    Half,
    TorchRunner,
    cast_weights,
    inference_context,
    split_batch,
)
from sagemaker_model.nets.modnet import MODNet  # noqa: E402
from tests.unit.sagemaker_model.engines.fake_recorder import FakeRecorder  # noqa: E402

SMALL, WIDE = (3, 1, 16), (3, 1, 32)


@dataclass
class Doubling:
    """A network with two outputs. Inputs of more than `numbers_max` numbers raise torch.OutOfMemoryError."""

    numbers_max: int = 10**6
    sizes: list[int] = field(default_factory=list)

    def __call__(self, x: torch.Tensor) -> list[torch.Tensor]:
        self.sizes.append(len(x))
        if x.numel() > self.numbers_max:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return [2 * x, x.sum((1, 2, 3))]


@pytest.fixture(params=["with graphs", "without graphs"])
def recorder(request: pytest.FixtureRequest) -> FakeRecorder | None:
    return FakeRecorder() if request.param == "with graphs" else None


def make_runner(network: Callable[..., list[torch.Tensor]], recorder: FakeRecorder | None = None) -> TorchRunner:
    return TorchRunner(network, "cpu", recorder=(lambda: recorder) if recorder else None)


def images(count: int, shape: tuple[int, ...] = SMALL) -> list[np.ndarray]:
    return [np.full(shape, number + 1, np.float32) for number in range(count)]


def assert_doubled(outputs: Sequence[tuple[np.ndarray, ...]], sent: Sequence[np.ndarray]) -> None:
    assert len(outputs) == len(sent)
    for (doubled, total), image in zip(outputs, sent, strict=True):
        assert np.array_equal(doubled, 2 * image)
        assert total == image.sum()


@pytest.mark.parametrize("batch_max", [1, 2, 6, 8])
def test_every_image_gets_its_own_outputs_in_order_for_any_number_of_images(
    recorder: FakeRecorder | None, batch_max: int
) -> None:
    runner = make_runner(Doubling(), recorder)
    runner.warm_up([SMALL, WIDE], batch_max)
    for count in range(1, 20):
        for shape in (SMALL, WIDE):
            assert_doubled(runner.run(images(count, shape)), images(count, shape))


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, [1]),
        (3, [4]),
        (5, [4, 1]),
        (6, [8]),
        (7, [8]),
        (9, [8, 1]),
        (11, [8, 4]),
        (12, [16]),
        (16, [16]),
        (40, [16, 16, 8]),
    ],
)
def test_a_batch_is_padded_if_at_least_three_quarters_full_and_split_otherwise(count: int, expected: list[int]) -> None:
    network, recorder = Doubling(), FakeRecorder()
    runner = make_runner(network, recorder)
    runner.warm_up([SMALL], 16)
    network.sizes.clear()
    assert_doubled(runner.run(images(count)), images(count))
    assert network.sizes == expected


@pytest.mark.parametrize("sizes", [(1,), (1, 2, 4, 8, 16), (2, 4), (4,)])
def test_split_batch_covers_every_image_once(sizes: tuple[int, ...]) -> None:
    for count in range(1, 50):
        run = list(split_batch(count, sizes))
        assert sum(part for part, _ in run) == count
        assert all(0 < part <= size and size in sizes for part, size in run)
        assert all(part >= FILLED_MIN * size for part, size in run if size > min(sizes))


def test_sizes_that_do_not_fit_into_memory_are_left_out_and_their_batches_are_split(
    recorder: FakeRecorder | None, caplog: pytest.LogCaptureFixture
) -> None:
    network = Doubling(numbers_max=4 * 48)
    runner = make_runner(network, recorder)
    runner.warm_up([SMALL, WIDE], 16)
    assert "16 images of (3, 1, 16) do not fit" in caplog.text
    for shape, largest in ((SMALL, 4), (WIDE, 2)):
        network.sizes.clear()
        assert_doubled(runner.run(images(13, shape)), images(13, shape))
        assert max(network.sizes) == largest


def test_an_image_that_does_not_fit_raises_out_of_memory_until_it_fits(recorder: FakeRecorder | None) -> None:
    network = Doubling(numbers_max=10)
    runner = make_runner(network, recorder)
    runner.warm_up([SMALL], 4)
    with pytest.raises(torch.OutOfMemoryError):
        runner.run(images(1))
    network.numbers_max = 48
    assert_doubled(runner.run(images(1)), images(1))


def test_out_of_memory_without_a_graph_leaves_the_graphs_usable() -> None:
    network = Doubling()
    runner = make_runner(network, FakeRecorder())
    runner.warm_up([SMALL], 4)
    network.numbers_max = 48
    with pytest.raises(torch.OutOfMemoryError):
        runner.run(images(1, WIDE))  # a shape without a graph
    assert_doubled(runner.run(images(1)), images(1))


@pytest.mark.parametrize("recorded_max", [0, 3])
def test_if_a_graph_cannot_be_recorded_forward_passes_run_without_graphs(recorded_max: int) -> None:
    recorder = FakeRecorder(recorded_max=recorded_max)
    runner = make_runner(Doubling(), recorder)
    comparisons = runner.warm_up([SMALL, WIDE], 8)
    assert len(recorder.recorded) == recorded_max
    assert not next(one for one in comparisons if one.optimisation == "graph").passed
    for shape in (SMALL, WIDE):
        assert_doubled(runner.run(images(7, shape)), images(7, shape))


def test_an_error_of_the_network_is_raised_by_warm_up() -> None:
    def broken(x: torch.Tensor) -> list[torch.Tensor]:
        raise RuntimeError("no kernel image is available for execution on the device")

    with pytest.raises(RuntimeError, match="no kernel image"):
        make_runner(broken, FakeRecorder()).warm_up([SMALL], 1)


def test_the_largest_batch_is_recorded_first_so_that_the_others_share_its_memory() -> None:
    recorder = FakeRecorder()
    make_runner(Doubling(), recorder).warm_up([SMALL, WIDE], 4)
    numbers = [doubled.numel() for doubled, _ in recorder.recorded]
    assert numbers == [4 * 96, 2 * 96, 96, 4 * 48, 2 * 48, 48]


def test_many_threads_get_their_own_outputs(recorder: FakeRecorder | None) -> None:
    runner = make_runner(Doubling(), recorder)
    runner.warm_up([SMALL], 8)

    def run_images(seed: int) -> None:
        sent = [image * (seed + 1) for image in images(1 + seed % 9)]
        assert_doubled(runner.run(sent), sent)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run_images, range(100)))


def test_a_shape_that_is_not_warmed_up_runs_one_image_at_a_time() -> None:
    network = Doubling()
    assert_doubled(make_runner(network).run(images(7)), images(7))
    assert network.sizes == [1] * 7


def test_cast_weights_casts_convolutions_and_keeps_norms() -> None:
    net = MODNet()
    cast_weights(net, torch.float16)
    kinds = {type(layer): {p.dtype for p in layer.parameters(recurse=False)} for layer in net.modules()}
    assert kinds[torch.nn.Conv2d] == kinds[torch.nn.Linear] == {torch.float16}
    assert kinds[torch.nn.BatchNorm2d] == {torch.float32}


# A graph cannot record copies from the host or values that Python reads


class Devices(TorchDispatchMode):
    """Collects the operations that use tensors on other devices than "meta"."""

    def __init__(self) -> None:
        super().__init__()
        self.on_other_devices: set[str] = set()

    def __torch_dispatch__(self, func: object, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        output = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, output)) if isinstance(leaf, torch.Tensor)]
        if any(tensor.device.type != "meta" for tensor in tensors):
            self.on_other_devices.add(str(func))
        return output


@pytest.mark.parametrize("name", ["modnet", "sam", "sam2"])
def test_a_forward_pass_uses_tensors_of_its_device_only(name: str) -> None:
    """Runs on the device "meta", which has shapes but no values: reading a value fails."""
    if name == "modnet":
        net, shape = MODNet().eval(), (2, 3, 64, 96)
    else:
        pytest.importorskip("transformers", reason="transformers is not installed")
        from sagemaker_model.nets.sam import Encoder
        from tests.unit.sagemaker_model.nets.small_sam import NETWORKS

        network = NETWORKS[name]()
        side = network.config.prompt_encoder_config.image_size
        net, shape = Encoder(network), (2, 3, side, side)
    net.to("meta")
    with Devices() as devices, inference_context(torch.device("meta"), torch.float32):
        output = net(torch.empty(shape))
    assert devices.on_other_devices == set()
    assert len(output) > 0


# On a GPU

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is available")


@on_a_gpu
def test_graphs_give_the_outputs_of_the_network_without_graphs() -> None:
    torch.manual_seed(0)
    net = MODNet().eval().to("cuda").to(memory_format=torch.channels_last)
    exact = copy.deepcopy(net)
    cast_weights(net, torch.float16)
    half = Half(lambda x: (net(x)[:, 0],), torch.float16)
    runner, plain = (TorchRunner(lambda x: (exact(x)[:, 0],), "cuda", half) for _ in range(2))
    shapes = [(3, 512, 672), (3, 672, 512), (3, 512, 512)]
    comparisons = runner.warm_up(shapes, 8)
    assert {one.optimisation: one.passed for one in comparisons} == {"half": True, "batch": True, "graph": True}
    rng = np.random.default_rng(0)
    for shape in shapes:
        for count in (1, 3, 8, 13):
            sent = [rng.uniform(-1, 1, shape).astype(np.float32) for _ in range(count)]
            for (outputs,), one in zip(runner.run(sent), sent, strict=True):
                ((expected,),) = plain.run([one])
                assert np.abs(outputs.astype(np.float32) - expected).max() < 0.02


@on_a_gpu
def test_a_graph_that_differs_is_switched_off() -> None:
    def shifted_in_graphs(x: torch.Tensor) -> list[torch.Tensor]:
        return [2 * (x.roll(1, -1) if torch.cuda.is_current_stream_capturing() else x), x.sum((1, 2, 3))]

    runner = TorchRunner(shifted_in_graphs, "cuda")
    comparisons = runner.warm_up([SMALL, WIDE], 8)
    assert {one.optimisation: one.passed for one in comparisons} == {"batch": True, "graph": False}
    assert_doubled(runner.run(images(7)), images(7))


@on_a_gpu
def test_real_out_of_memory_leaves_the_graphs_usable() -> None:
    """For batches of more than two images, the network allocates more memory than any GPU has."""

    def network(x: torch.Tensor) -> list[torch.Tensor]:
        if len(x) > 2:
            torch.empty(10**15, device=x.device)
        return [2 * x, x.sum((1, 2, 3))]

    runner = TorchRunner(network, "cuda")
    runner.warm_up([SMALL], 8)
    assert max(runner._batches[SMALL]) == 2
    assert_doubled(runner.run(images(7)), images(7))
