from __future__ import annotations

import pytest

from tests.bench.roofline import Ceilings, Cost, count_cost


def test_high_intensity_is_bound_by_flops_and_low_intensity_by_bandwidth() -> None:
    device = Ceilings(flops_s=100e9, bytes_s=10e9)
    assert device.attainable(intensity=1000) == 100e9
    assert device.attainable(intensity=2) == 20e9
    assert device.attainable(intensity=10) == 100e9


def test_weights_are_moved_once_a_batch_so_larger_batches_have_a_higher_intensity() -> None:
    cost = Cost(flops=1000, activations=10, weights=90)
    assert cost.intensity(batch=1, item_bytes=4) == 1000 / 400
    assert cost.intensity(batch=9, item_bytes=4) == 9000 / (4 * 180)
    assert cost.intensity(batch=1, item_bytes=1) == 4 * cost.intensity(batch=1, item_bytes=4)


def test_the_operations_and_elements_of_a_layer_are_counted() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    cost = count_cost(torch.nn.Conv2d(3, 8, 3, padding=1, bias=False), 3, 16, 20)
    assert cost.flops == 2 * (3 * 3 * 3) * 8 * 16 * 20
    assert cost.activations == 3 * 16 * 20 + 8 * 16 * 20
    assert cost.weights == 8 * 3 * 3 * 3


def test_norms_and_activations_add_no_memory_traffic() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    convolution = torch.nn.Conv2d(3, 8, 3, bias=False)
    plain = count_cost(torch.nn.Sequential(convolution), 3, 16, 16)
    more = count_cost(torch.nn.Sequential(convolution, torch.nn.ReLU(), torch.nn.MaxPool2d(2)), 3, 16, 16)
    assert (more.flops, more.activations) == (plain.flops, plain.activations)


def test_the_cost_of_modnet_agrees_with_published_figures() -> None:
    """OpenVINO's model zoo: 31.2 GFLOPs and 6.46 million parameters at 512x512."""
    pytest.importorskip("torch", reason="torch is not installed")
    from sagemaker_model.nets.modnet import MODNet

    cost = count_cost(MODNet(), 3, 512, 512)
    assert cost.flops / 1e9 == pytest.approx(31.2, rel=0.02)
    assert cost.weights / 1e6 == pytest.approx(6.46, rel=0.02)
