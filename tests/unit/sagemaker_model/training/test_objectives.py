"""The objective of Mask R-CNN, with a fake network: the targets of its losses."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from sagemaker_model.training.objectives import Instance  # noqa: E402 - needs torch

Targets = list[dict[str, torch.Tensor]]


class FakeNetwork(torch.nn.Module):
    """Stores the targets and returns two losses."""

    def losses(self, image: torch.Tensor, targets: Targets) -> dict[str, torch.Tensor]:
        self.targets = targets
        return {"loss_mask": torch.tensor(2.0), "loss_box_reg": torch.tensor(0.5)}


def test_a_mask_is_one_instance_in_its_box_and_an_empty_mask_is_no_instance() -> None:
    alpha = torch.zeros(2, 1, 8, 10)
    alpha[0, 0, 2:5, 3:9] = 1
    net = FakeNetwork()
    loss = Instance(net)(torch.rand(2, 3, 8, 10), alpha)
    assert loss.item() == 2.5
    subject, empty = net.targets
    assert subject["boxes"].tolist() == [[3, 2, 8, 4]]
    assert subject["labels"].tolist() == [1]
    assert torch.equal(subject["masks"][0], alpha[0, 0].to(torch.uint8))
    assert [len(empty[name]) for name in ("boxes", "labels", "masks")] == [0, 0, 0]
