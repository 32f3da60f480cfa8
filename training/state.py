"""The state of a run on the disk, from which it goes on to the same weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from live2diff_core.run.state_file import differences, write_tensors

from .option_checks import ConfigError

FORMAT = "comfyui-live2diff training 1"
_MOMENTS = ("exp_avg", "exp_avg_sq")


class RunState:
    """What a step changes: weights, their mean, and the optimizer's moments.

    Args:
        parameters: by name.
        mean: the moving mean by name; empty without one.
        optimizer: Adam or AdamW over `parameters` in their order.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        mean: Mapping[str, Tensor],
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Look at them; nothing is copied."""
        self._parameters, self._mean, self._optimizer = parameters, mean, optimizer

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name, on the CPU."""
        found = {f"weights/{name}": value for name, value in self._parameters.items()}
        found |= {f"mean/{name}": value for name, value in self._mean.items()}
        for name, value in self._parameters.items():
            moments = self._optimizer.state.get(value, {})
            found |= {f"{moment}/{name}": moments[moment] for moment in _MOMENTS if moments}
        return {name: value.detach().cpu().contiguous() for name, value in found.items()}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Take over what `tensors` returned after `step` steps."""
        for name, value in self._parameters.items():
            value.copy_(tensors[f"weights/{name}"])
            moments = {m: tensors[f"{m}/{name}"].to(value.device) for m in _MOMENTS if step}
            if moments:
                count = torch.tensor(float(step))
                # Where Adam runs as one kernel, its count is on the device.
                fused = self._optimizer.defaults.get("fused")
                self._optimizer.state[value] = {
                    "step": count.to(value.device) if fused else count,
                    **moments,
                }
        for name, value in self._mean.items():
            value.copy_(tensors[f"mean/{name}"])


def save_run(path: Path, state: RunState, step: int, identity: Mapping[str, Any]) -> None:
    """Write the state after `step` steps; a crash leaves the old file or the new one."""
    about = {"format": FORMAT, "step": str(step), "identity": json.dumps(dict(identity))}
    write_tensors(path, state.tensors(), about)


def load_run(path: Path, state: RunState, identity: Mapping[str, Any]) -> int:
    """Restore a run, if there is one at `path`.

    Returns:
        The steps that it has made; 0 for a new run.

    Raises:
        ConfigError: the file is damaged, or that of a run with other options; the message says
            which.
    """
    if not path.is_file():
        return 0
    try:
        with safe_open(str(path), framework="pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        step, saved = int(about["step"]), json.loads(about["identity"])
    except (SafetensorError, LookupError, ValueError) as error:
        raise ConfigError(
            f"{path} is damaged or no state of a run ({error}). Remove it to start over."
        ) from error
    changed = differences(saved, json.loads(json.dumps(dict(identity))))
    if changed:
        raise ConfigError(
            f"{path.parent} holds a run with other options: {changed}. Choose another `output`, or "
            f"remove {path.name} to start over."
        )
    state.restore(tensors, step)
    return step
