"""Optimisations with injected faults: each is switched off, and the results are those of float32."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sagemaker_model.engines.portrait import Portrait
from sagemaker_model.engines.verification import (
    FLOAT32_TOLERANCE,
    HALF_TOLERANCE,
    INFINITE,
    Comparison,
    Difference,
    EngineUnavailable,
    built_in_image,
    difference,
    is_conclusive,
    network_inputs,
)

torch = pytest.importorskip("torch", reason="torch is not installed")

from sagemaker_model.engines.torch_runner import Half, Pass, TorchRunner  # noqa: E402
from tests.unit.sagemaker_model.engines.fake_recorder import FakeRecorder  # noqa: E402

SQUARE, WIDE = (3, 32, 32), (3, 32, 64)
Result = list[torch.Tensor]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # the images are small: several threads are slower
    yield
    torch.set_num_threads(before)


def matte(x: torch.Tensor) -> Result:
    """A network: the bright parts of an image."""
    return [torch.sigmoid(4 * torch.nn.functional.avg_pool2d(x.mean(1), 3, 1, 1))]


def results(values: Callable[[torch.Tensor], torch.Tensor], at: Callable[[torch.Tensor], bool]) -> Any:
    """Returns a network that is `matte`, with its result changed by `values` for the inputs `at`."""
    return lambda x: [values(one) if at(x) else one for one in matte(x)]


def always(_: torch.Tensor) -> bool:
    return True


def in_batches(x: torch.Tensor) -> bool:
    return len(x) > 1


def in_one_shape_and_size(x: torch.Tensor) -> bool:
    return len(x) == 4 and tuple(x.shape[1:]) == SQUARE


@dataclass
class WrongRecorder(FakeRecorder):
    """Changes what a replay returns: `outputs` gets the outputs of this replay and those of the replay before."""

    outputs: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = lambda now, _: now

    def record(self, run: Pass) -> Pass:
        before, replay = [one.clone() for one in run()], super().record(run)

        def wrong_replay() -> Sequence[torch.Tensor]:
            now = [one.clone() for one in replay()]
            changed = [self.outputs(one, old) for one, old in zip(now, before, strict=True)]
            before[:] = now
            return changed

        return wrong_replay


def runner(half: Any = matte, exact: Any = matte, recorder: FakeRecorder | None = None) -> TorchRunner:
    return TorchRunner(exact, "cpu", Half(half, torch.bfloat16), lambda: recorder or FakeRecorder())


def passed(comparisons: Sequence[Comparison]) -> dict[str, bool]:
    return {one.optimisation: one.passed for one in comparisons}


def assert_equals_float32(verified: TorchRunner, tolerance: float = 0) -> None:
    for shape in (SQUARE, WIDE):
        for count in (1, 3, 8, 11):
            sent = network_inputs(shape, count)
            for (found,), image in zip(verified.run(sent), sent, strict=True):
                (expected,) = matte(torch.from_numpy(image[None]))
                assert np.abs(found - expected[0].numpy()).max() <= tolerance


WRONG_HALVES = {
    "overflow": results(lambda one: one * torch.inf, always),
    "NaN": results(lambda one: one * torch.nan, always),
    "empty": results(torch.zeros_like, always),
    "shifted": results(lambda one: one.roll(4, -1), always),
    "darker by a twentieth": results(lambda one: one * 0.95, always),
}

WRONG_BATCHES = {
    "mixes up the images": results(lambda one: one.flip(0), in_batches),
    "returns the first image for all": results(lambda one: one[:1].expand_as(one), in_batches),
    "loses the last image": results(lambda one: torch.cat((one[:-1], torch.zeros_like(one[-1:]))), in_batches),
    "NaN": results(lambda one: one * torch.nan, in_batches),
    "wrong in one shape and size": results(lambda one: one.flip(0), in_one_shape_and_size),
}

WRONG_GRAPHS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "returns the results of the replay before": lambda _, before: before,
    "shifted": lambda now, _: now.roll(4, -1),
    "one wrong pixel": lambda now, _: (now + 0.5 * (torch.arange(now[0].numel()) == 0).view_as(now[0])) % 1,
    "NaN": lambda now, _: now * torch.nan,
    "wrong in one shape and size": lambda now, _: now.flip(0) if now.shape == (4, 32, 64) else now,
}


def test_optimisations_with_the_results_of_float32_stay_on() -> None:
    verified = runner()
    comparisons = verified.warm_up([SQUARE, WIDE], 8)
    assert passed(comparisons) == {"half": True, "batch": True, "graph": True}
    assert all(np.isfinite(one.difference.largest) for one in comparisons)
    assert sorted(verified._batches[SQUARE]) == [1, 2, 4, 8]
    assert_equals_float32(verified, tolerance=1e-6)


@pytest.mark.parametrize("fault", WRONG_HALVES)
def test_half_precision_that_differs_is_switched_off(fault: str) -> None:
    verified = runner(half=WRONG_HALVES[fault])
    assert passed(verified.warm_up([SQUARE, WIDE], 8)) == {"half": False, "batch": True, "graph": True}
    assert_equals_float32(verified)


@pytest.mark.parametrize("fault", WRONG_BATCHES)
def test_batches_that_differ_are_switched_off(fault: str) -> None:
    network = WRONG_BATCHES[fault]
    verified = runner(half=network, exact=network)
    assert passed(verified.warm_up([SQUARE, WIDE], 8)) == {"half": True, "batch": False, "graph": True}
    assert_equals_float32(verified, tolerance=1e-6)


@pytest.mark.parametrize("fault", WRONG_GRAPHS)
def test_graphs_that_differ_are_switched_off(fault: str) -> None:
    verified = runner(recorder=WrongRecorder(outputs=WRONG_GRAPHS[fault]))
    assert passed(verified.warm_up([SQUARE, WIDE], 8)) == {"half": True, "batch": True, "graph": False}
    assert_equals_float32(verified, tolerance=1e-6)


def test_with_three_faults_every_image_runs_alone_in_float32() -> None:
    shifted = WrongRecorder(outputs=WRONG_GRAPHS["shifted"])
    network = WRONG_BATCHES["mixes up the images"]
    verified = runner(half=WRONG_HALVES["NaN"], exact=network, recorder=shifted)
    assert passed(verified.warm_up([SQUARE, WIDE], 8)) == {"half": False, "batch": False, "graph": False}
    assert_equals_float32(verified)


def test_before_the_comparison_no_optimisation_is_on() -> None:
    unverified = runner(half=WRONG_HALVES["NaN"], exact=WRONG_BATCHES["mixes up the images"])
    assert_equals_float32(unverified)


def test_a_network_that_returns_nan_in_float32_is_unavailable() -> None:
    with pytest.raises(EngineUnavailable, match="NaN or infinity"):
        runner(exact=WRONG_HALVES["NaN"]).warm_up([SQUARE], 8)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_if_all_images_have_one_result_nothing_is_proved_and_everything_is_off(value: float) -> None:
    def flat(x: torch.Tensor) -> Result:
        return [torch.full_like(x[:, 0], value)]

    comparisons = runner(half=flat, exact=flat).warm_up([SQUARE], 8)
    assert passed(comparisons) == {"half": False, "batch": False, "graph": False}
    assert {str(one).partition(":")[0] for one in comparisons} == {"nothing can be compared"}


def test_if_no_image_fits_into_the_memory_nothing_is_proved_and_everything_is_off() -> None:
    def too_large(x: torch.Tensor) -> Result:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    comparisons = runner(half=too_large, exact=too_large).warm_up([SQUARE], 8)
    assert passed(comparisons) == {"half": False, "batch": False, "graph": False}


def test_the_weights_that_are_not_in_use_are_freed() -> None:
    verified = runner()
    verified.warm_up([SQUARE], 8)
    assert not hasattr(verified, "_exact")
    assert not hasattr(verified, "_half")


# The comparison


def test_the_built_in_image_shows_a_person_wherever_it_is_shifted(tmp_path: Path) -> None:
    engine = Portrait()
    engine.setup("cpu", tmp_path)
    width = built_in_image().shape[1]
    mattes = [(engine.predict(np.roll(built_in_image(), i * width // 16, 1), ()).values,) for i in range(16)]
    assert all(0.2 < values.mean() < 0.8 for (values,) in mattes)
    assert is_conclusive(mattes, HALF_TOLERANCE)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([1.0, 2.0, 4.0], Difference(0, 0)),
        ([1.0, 2.0, 3.0], Difference(0.25, 0.25 / 3)),
        ([3.0, 2.0, 4.0], Difference(0.5, 0.5 / 3)),
        ([np.nan, 2.0, 4.0], INFINITE),
        ([np.inf, 2.0, 4.0], INFINITE),
        ([1.0, 2.0], INFINITE),
    ],
)
def test_differences_are_shares_of_the_largest_value(found: list[float], expected: Difference) -> None:
    values = np.array(found, np.float16)
    measured = difference([(values,)], [(np.array([1, 2, 4], np.float32),)])
    assert (measured.largest, measured.mean) == pytest.approx((expected.largest, expected.mean))


def test_a_comparison_states_its_difference_and_its_tolerance() -> None:
    text = str(Comparison("half", Difference(0.031, 0.004), FLOAT32_TOLERANCE))
    assert text == "the largest difference is 0.031 (mean 0.004), the tolerance 0.002 (mean 0.0002)"
