"""Batches through torch: on the CPU, where a tape stands in for the graphs; where there is a GPU, with real ones."""

from __future__ import annotations

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
    CannotRecord,
    Pass,
    TorchRunner,
    lowered,
    mode,
    parts,
)
from sagemaker_model.nets.modnet import MODNet  # noqa: E402

SMALL, WIDE = (3, 4, 4), (3, 4, 8)


@dataclass
class Doubling:
    """A network of two outputs. `fits` is how many numbers its memory takes."""

    fits: int = 10**6
    sizes: list[int] = field(default_factory=list)

    def __call__(self, x: torch.Tensor) -> list[torch.Tensor]:
        self.sizes.append(len(x))
        if x.numel() > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return [2 * x, x.sum((1, 2, 3))]


@dataclass
class Tape:
    """Does again what it recorded, into the same outputs; and as in the memory that graphs share, what others have put
    out is then gone."""

    refuses: int = 10**6
    recorded: list[Sequence[torch.Tensor]] = field(default_factory=list)

    def record(self, run: Pass) -> Pass:
        if len(self.recorded) >= self.refuses:
            raise CannotRecord("operation not permitted when stream is capturing")
        outputs = run()
        self.recorded.append(outputs)

        def replay() -> Sequence[torch.Tensor]:
            for others in self.recorded:
                for other in others:
                    other.fill_(torch.nan)
            for output, new in zip(outputs, run(), strict=True):
                output.copy_(new)
            return outputs

        return replay


@pytest.fixture(params=["with graphs", "without graphs"])
def tape(request: pytest.FixtureRequest) -> Tape | None:
    return Tape() if request.param == "with graphs" else None


def runner(network: Callable[..., list[torch.Tensor]], tape: Tape | None = None) -> TorchRunner:
    return TorchRunner(network, "cpu", torch.float16, (lambda: tape) if tape else None)


def pictures(count: int, shape: tuple[int, ...] = SMALL) -> list[np.ndarray]:
    return [np.full(shape, number + 1, np.float32) for number in range(count)]


def assert_doubled(found: Sequence[tuple[np.ndarray, ...]], sent: Sequence[np.ndarray]) -> None:
    assert len(found) == len(sent)
    for (doubled, total), picture in zip(found, sent, strict=True):
        assert np.array_equal(doubled, 2 * picture)
        assert total == picture.sum()


@pytest.mark.parametrize("batch_max", [1, 2, 6, 8])
def test_every_picture_gets_its_own_outputs_in_order_however_many_there_are(tape: Tape | None, batch_max: int) -> None:
    made = runner(Doubling(), tape)
    made.warm_up([SMALL, WIDE], batch_max)
    for count in range(1, 20):
        for shape in (SMALL, WIDE):
            assert_doubled(made.run(pictures(count, shape)), pictures(count, shape))


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
def test_a_batch_is_filled_up_where_little_is_missing_and_split_where_much_is(count: int, expected: list[int]) -> None:
    network, tape = Doubling(), Tape()
    made = runner(network, tape)
    made.warm_up([SMALL], 16)
    network.sizes.clear()
    assert_doubled(made.run(pictures(count)), pictures(count))
    assert network.sizes == expected


@pytest.mark.parametrize("sizes", [(1,), (1, 2, 4, 8, 16), (2, 4), (4,)])
def test_no_picture_is_lost_or_run_twice_by_the_parts(sizes: tuple[int, ...]) -> None:
    for count in range(1, 50):
        run = list(parts(count, sizes))
        assert sum(some for some, _ in run) == count
        assert all(0 < some <= size and size in sizes for some, size in run)
        assert all(some >= FILLED_MIN * size for some, size in run if size > min(sizes))


def test_sizes_that_do_not_fit_are_left_out_and_their_batches_run_in_parts(
    tape: Tape | None, caplog: pytest.LogCaptureFixture
) -> None:
    network = Doubling(fits=4 * 48)
    made = runner(network, tape)
    made.warm_up([SMALL, WIDE], 16)
    assert "16 images of (3, 4, 4) do not fit" in caplog.text
    for shape, largest in ((SMALL, 4), (WIDE, 2)):
        network.sizes.clear()
        assert_doubled(made.run(pictures(13, shape)), pictures(13, shape))
        assert max(network.sizes) == largest


def test_a_picture_that_does_not_fit_alone_is_out_of_memory_until_it_fits(tape: Tape | None) -> None:
    network = Doubling(fits=10)
    made = runner(network, tape)
    made.warm_up([SMALL], 4)
    with pytest.raises(torch.OutOfMemoryError):
        made.run(pictures(1))
    network.fits = 48
    assert_doubled(made.run(pictures(1)), pictures(1))


def test_out_of_memory_beside_the_graphs_leaves_them_as_they_are() -> None:
    network = Doubling()
    made = runner(network, Tape())
    made.warm_up([SMALL], 4)
    network.fits = 48
    with pytest.raises(torch.OutOfMemoryError):
        made.run(pictures(2, WIDE))  # a shape without a graph
    assert_doubled(made.run(pictures(1)), pictures(1))


@pytest.mark.parametrize("refuses", [0, 3])
def test_where_a_graph_cannot_be_recorded_passes_run_without(refuses: int, caplog: pytest.LogCaptureFixture) -> None:
    tape = Tape(refuses=refuses)
    made = runner(Doubling(), tape)
    made.warm_up([SMALL, WIDE], 8)
    assert len(tape.recorded) == refuses
    assert caplog.text.count("a CUDA graph cannot be recorded") == 1
    for shape in (SMALL, WIDE):
        assert_doubled(made.run(pictures(7, shape)), pictures(7, shape))


def test_a_network_that_fails_fails_the_start() -> None:
    def broken(x: torch.Tensor) -> list[torch.Tensor]:
        raise RuntimeError("no kernel image is available for execution on the device")

    with pytest.raises(RuntimeError, match="no kernel image"):
        runner(broken, Tape()).warm_up([SMALL], 1)


def test_the_largest_batch_is_recorded_first_so_that_the_others_work_in_its_memory() -> None:
    tape = Tape()
    runner(Doubling(), tape).warm_up([SMALL, WIDE], 4)
    numbers = [doubled.numel() for doubled, _ in tape.recorded]
    assert numbers == [4 * 96, 2 * 96, 96, 4 * 48, 2 * 48, 48]


def test_many_threads_get_their_own_answers(tape: Tape | None) -> None:
    made = runner(Doubling(), tape)
    made.warm_up([SMALL], 8)

    def work(seed: int) -> None:
        sent = [picture * (seed + 1) for picture in pictures(1 + seed % 9)]
        assert_doubled(made.run(sent), sent)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(100)))


def test_what_was_not_warmed_up_runs_as_it_is() -> None:
    network = Doubling()
    assert_doubled(runner(network).run(pictures(7)), pictures(7))
    assert network.sizes == [7]


def test_norms_keep_their_weights_when_those_of_convolutions_are_lowered() -> None:
    net = MODNet()
    lowered(net, torch.float16)
    kinds = {type(layer): {p.dtype for p in layer.parameters(recurse=False)} for layer in net.modules()}
    assert kinds[torch.nn.Conv2d] == kinds[torch.nn.Linear] == {torch.float16}
    assert kinds[torch.nn.BatchNorm2d] == {torch.float32}


# What a graph cannot hold: a copy from the host, or a number that Python waits for


class Devices(TorchDispatchMode):
    """Notes on which devices an operation's tensors are."""

    def __init__(self) -> None:
        super().__init__()
        self.elsewhere: set[str] = set()

    def __torch_dispatch__(self, func: object, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        output = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, output)) if isinstance(leaf, torch.Tensor)]
        if any(tensor.device.type != "meta" for tensor in tensors):
            self.elsewhere.add(str(func))
        return output


@pytest.mark.parametrize("name", ["modnet", "sam", "sam2"])
def test_a_pass_touches_nothing_but_the_device(name: str) -> None:
    """On the device "meta", which has shapes but no numbers: asking it for one fails."""
    if name == "modnet":
        net, shape = MODNet().eval(), (2, 3, 64, 96)
    else:
        pytest.importorskip("transformers", reason="transformers is not installed")
        from sagemaker_model.nets.sam import Encoder
        from tests.unit.sagemaker_model.nets.test_sam_networks import SMALL as SMALL_SAM

        network = SMALL_SAM[name]()
        side = network.config.prompt_encoder_config.image_size
        net, shape = Encoder(network), (2, 3, side, side)
    net.to("meta")
    with Devices() as devices, mode(torch.device("meta"), torch.float16):
        output = net(torch.empty(shape))
    assert devices.elsewhere == set()
    assert len(output) > 0


# On a GPU

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@on_a_gpu
def test_graphs_give_what_the_network_gives_without() -> None:
    torch.manual_seed(0)
    net = MODNet().eval().to("cuda").to(memory_format=torch.channels_last)
    lowered(net, torch.float16)
    made, plain = (TorchRunner(lambda x: (net(x)[:, 0],), "cuda", torch.float16) for _ in range(2))
    shapes = [(3, 512, 672), (3, 672, 512), (3, 512, 512)]
    made.warm_up(shapes, 8)
    assert made._recorder is not None, "the graphs were recorded"
    rng = np.random.default_rng(0)
    for shape in shapes:
        for count in (1, 3, 8, 13):
            sent = [rng.uniform(-1, 1, shape).astype(np.float32) for _ in range(count)]
            for (found,), one in zip(made.run(sent), sent, strict=True):
                ((expected,),) = plain.run([one])
                assert np.abs(found.astype(np.float32) - expected).max() < 0.02


@on_a_gpu
def test_memory_that_runs_out_leaves_the_graphs_as_they_are() -> None:
    """A real one: the network wants a thousand times the memory that there is for a batch of more than two."""

    def network(x: torch.Tensor) -> list[torch.Tensor]:
        if len(x) > 2:
            torch.empty(10**15, device=x.device)
        return [2 * x, x.sum((1, 2, 3))]

    made = TorchRunner(network, "cuda", torch.float16)
    made.warm_up([SMALL], 8)
    assert_doubled(made.run(pictures(7)), pictures(7))
    with pytest.raises(torch.OutOfMemoryError):
        made.run(pictures(3, WIDE))
    assert_doubled(made.run(pictures(7)), pictures(7))
