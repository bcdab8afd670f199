"""A fake of CUDA graphs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from sagemaker_model.engines.torch_runner import CannotRecord, Pass


@dataclass
class FakeRecorder:
    """Replays recorded passes into the same outputs. Each replay overwrites the outputs of the others with NaN.

    Real graphs share their memory in the same way. recorded_max: passes after which recording fails.
    """

    recorded_max: int = 10**6
    recorded: list[Sequence[torch.Tensor]] = field(default_factory=list)

    def record(self, run: Pass) -> Pass:
        if len(self.recorded) >= self.recorded_max:
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
