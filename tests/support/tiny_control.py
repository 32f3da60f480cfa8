"""A ControlNet of the host's own class that notes the picture that each row is shown."""

import comfy.controlnet
import torch
from host_stream import prompt


class TinyControl(torch.nn.Module):
    """Adds the mean of each row's hint to the middle block, and notes the hints it saw."""

    dtype = torch.float32

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.seen = []

    def forward(self, x, hint, timesteps, context, **_):
        rows = hint.mean((1, 2, 3)).expand(len(x))
        self.seen.append([round(value) for value in rows.tolist()])
        return {"input": [], "middle": [rows.view(-1, 1, 1, 1).clone()], "output": []}


def numbered(first, count, size=(64, 80)):
    """Pictures [F, 3, H, W] for frames from `first` on; that of frame f is filled with f + 1."""
    numbers = torch.arange(first + 1.0, first + count + 1)
    return numbers.view(count, 1, 1, 1).expand(count, 3, *size).clone()


def controlled(images, net=None, seed=0, strength=20.0, time_range=(0.0, 1.0)):
    """A prompt with a ControlNet that shows `images`; `net` is noted on."""
    control = comfy.controlnet.ControlNet(net or TinyControl(), load_device=torch.device("cpu"))
    control.set_cond_hint(images, strength, time_range)
    return prompt(seed, control=control, control_apply_to_uncond=True)
