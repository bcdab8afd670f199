"""Interpolation of two sets of weights, those before and those after fine-tuning.

Fine-tuned on few photos, a network improves on similar images and gets worse on others. The mean of both sets keeps
most of both (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models").
"""

from __future__ import annotations

from pathlib import Path

from sagemaker_model.export.formats import load
from sagemaker_model.training.train import save_weights
from sagemaker_model.weights.checkpoints import MismatchedWeights, State


def blend(network: str, start: Path, end: Path, share: float, out: Path) -> None:
    """Writes (1 - share) * start + share * end to a .safetensors file. Integer entries, such as counters, are those of
    `end`. Raises ExportFailed, InvalidWeights."""
    net, start_state = load(network, end), load(network, start).state_dict()
    end_state = net.state_dict()
    if any(start_state[name].shape != tensor.shape for name, tensor in end_state.items()):
        raise MismatchedWeights(f"{start} and {end} are weights of networks of different sizes.")
    state: State = {
        name: start_state[name].lerp(tensor, share) if tensor.is_floating_point() else tensor
        for name, tensor in end_state.items()
    }
    net.load_state_dict(state)
    save_weights(net, out)
