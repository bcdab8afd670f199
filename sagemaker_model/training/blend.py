"""Weights between those that a training began with and those that it ended with. Fine-tuned on few photos, a network
gains on images like these and loses on others; half of the way it keeps most of both (Wortsman et al. 2022, "Robust
fine-tuning of zero-shot models")."""

from __future__ import annotations

from pathlib import Path

from sagemaker_model.export.formats import load
from sagemaker_model.training.train import save_weights
from sagemaker_model.weights.checkpoints import MismatchedWeights, State


def blend(network: str, start: Path, end: Path, share: float, out: Path) -> None:
    """Writes (1 - share) * start + share * end, as .safetensors; counters are those of `end`.
    Raises ExportFailed, InvalidWeights."""
    net, before = load(network, end), load(network, start).state_dict()
    after = net.state_dict()
    if any(before[name].shape != tensor.shape for name, tensor in after.items()):
        raise MismatchedWeights(f"{start} and {end} are weights of networks of other sizes.")
    state: State = {
        name: before[name].lerp(tensor, share) if tensor.is_floating_point() else tensor
        for name, tensor in after.items()
    }
    net.load_state_dict(state)
    save_weights(net, out)
