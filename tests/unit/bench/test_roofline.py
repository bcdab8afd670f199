from __future__ import annotations

import pytest

from tests.bench.roofline import Ceilings, Work, counted


def test_what_moves_little_is_bounded_by_the_product_and_what_moves_much_by_the_copy() -> None:
    device = Ceilings(flops_s=100e9, bytes_s=10e9)
    assert device.attainable(intensity=1000) == 100e9
    assert device.attainable(intensity=2) == 20e9
    assert device.attainable(intensity=10) == 100e9


def test_weights_are_moved_once_a_batch_so_larger_batches_are_more_intense() -> None:
    work = Work(flops=1000, activations=10, weights=90)
    assert work.intensity(batch=1, item_bytes=4) == 1000 / 400
    assert work.intensity(batch=9, item_bytes=4) == 9000 / (4 * 180)
    assert work.intensity(batch=1, item_bytes=1) == 4 * work.intensity(batch=1, item_bytes=4)


def test_a_layer_s_operations_and_elements_are_counted() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    work = counted(torch.nn.Conv2d(3, 8, 3, padding=1, bias=False), 3, 16, 20)
    assert work.flops == 2 * (3 * 3 * 3) * 8 * 16 * 20
    assert work.activations == 3 * 16 * 20 + 8 * 16 * 20
    assert work.weights == 8 * 3 * 3 * 3


def test_a_norm_and_an_activation_move_nothing_of_their_own() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    convolution = torch.nn.Conv2d(3, 8, 3, bias=False)
    plain = counted(torch.nn.Sequential(convolution), 3, 16, 16)
    more = counted(torch.nn.Sequential(convolution, torch.nn.ReLU(), torch.nn.MaxPool2d(2)), 3, 16, 16)
    assert (more.flops, more.activations) == (plain.flops, plain.activations)


def test_modnet_has_the_operations_that_others_publish() -> None:
    """OpenVINO's model zoo: 31.2 GFLOPs and 6.46 million parameters at 512x512."""
    pytest.importorskip("torch", reason="torch is not installed")
    from sagemaker_model.nets.modnet import MODNet

    work = counted(MODNet(), 3, 512, 512)
    assert work.flops / 1e9 == pytest.approx(31.2, rel=0.02)
    assert work.weights / 1e6 == pytest.approx(6.46, rel=0.02)
