"""Attention U-Net (Oktay et al.: "Attention U-Net: Learning Where to Look for the Pancreas", 2018): a small network
that the user trains from scratch.

A U-Net with attention gates on its skip connections: the features of the coarser level weight those of the finer level.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn


class AttentionUNet(nn.Module):
    """From an image to its matte, Nx1xHxW in 0..1. Input: Nx3xHxW float, RGB in 0..1, H and W multiples of 2**depth.

    filters: channels at full size; each of the `depth` halvings doubles them. Parameters: 0.5 M with 8 filters, 2.1 M
    with 16. dropout: share of the channels that each block drops in training.
    """

    def __init__(self, filters: int = 16, depth: int = 4, dropout: float = 0.2) -> None:
        super().__init__()
        widths = [filters * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(Block(before, after, dropout) for before, after in pairwise((3, *widths)))
        self.halve = nn.MaxPool2d(2)
        steps = list(pairwise(reversed(widths)))
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 2, stride=2) for coarse, fine in steps)
        self.gates = nn.ModuleList(Gate(fine, coarse) for coarse, fine in steps)
        self.up = nn.ModuleList(Block(2 * fine, fine, dropout) for _, fine in steps)
        self.last = nn.Conv2d(filters, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.logits(x))

    def logits(self, x: Tensor) -> Tensor:
        """Returns the matte before the sigmoid. Losses use it, because it is exact where the matte is almost 0 or 1."""
        skips: list[Tensor] = []
        for block in self.down:
            x = block(self.halve(x) if skips else x)
            skips.append(x)
        x = skips.pop()
        for enlarge, gate, block in zip(self.enlarge, self.gates, self.up, strict=True):
            fine = skips.pop()
            x = block(torch.cat((gate(fine, x), enlarge(x)), 1))
        logits: Tensor = self.last(x)
        return logits


def sized_for(state: Mapping[str, Tensor]) -> AttentionUNet:
    """Returns a network with as many filters as these weights have; the weights are not loaded."""
    last = state.get("last.weight")
    return AttentionUNet() if last is None else AttentionUNet(filters=last.shape[1])


class Block(nn.Sequential):
    """Two convolutions, each with batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Dropout2d(dropout),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class Gate(nn.Module):
    """Additive attention: multiplies `fine` by a weight in 0..1 for each pixel, computed at the size of `coarse`."""

    def __init__(self, fine: int, coarse: int) -> None:
        super().__init__()
        self.of_fine = nn.Conv2d(fine, fine, 2, stride=2, bias=False)
        self.of_coarse = nn.Conv2d(coarse, fine, 1)
        self.weight = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(fine, 1, 1), nn.Sigmoid())
        self.enlarge = nn.Upsample(scale_factor=2, mode="bilinear")

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        weight: Tensor = self.enlarge(self.weight(self.of_fine(fine) + self.of_coarse(coarse)))
        return fine * weight
