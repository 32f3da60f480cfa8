"""Fresh weights for the host's layers, which come without any."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def initialise(network: Network) -> Network:
    """Draw all weights as PyTorch does, and let them be trained.

    The host's layers skip both, because theirs are loaded.
    """
    for module in network.modules():
        for kind in (nn.Conv2d, nn.Linear, nn.GroupNorm, nn.LayerNorm, nn.Embedding):
            if isinstance(module, kind):
                kind.reset_parameters(module)
    return network.requires_grad_(True)


def zero(*layers: nn.Module) -> None:
    """Set weights and biases to zero, so that a residual branch starts without effect."""
    for layer in layers:
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
