"""Fits a network within a number of minutes, in a run that may be stopped at any time."""

from __future__ import annotations

import copy
import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor, nn

SAVE_SECONDS = 60.0
LOG_STEPS = 50


@dataclass(frozen=True)
class Plan:
    """How a network is fitted.

    Attributes:
        minutes: of computing, over all runs; the learning rate falls to zero within them.
        rate: the highest learning rate.
        averaging: decay of the moving average of the weights, which is the result.
        warmup_steps: in which the rate rises.
    """

    minutes: float
    rate: float
    averaging: float = 0.999
    warmup_steps: int = 100


def fit(
    network: nn.Module, loss: Callable[[int, float], Tensor], plan: Plan, path: Path
) -> nn.Module:
    """Fit `network`, and return a copy with the moving average of its weights.

    In several processes of one `torch.distributed` group, each computes batches of its own, and
    gradients are averaged. On a busy machine, processes of one thread each on a core of its own are
    faster than one with several threads, which wait for each other in every operation.

    Args:
        network: trained in place.
        loss: computes the loss of a batch from (its number, share of the time that is over).
        plan: how.
        path: where the state is kept; a run with the same path goes on from there.
    """
    run = _Run(network, plan, path)
    run.load()
    while run.seconds < 60 * plan.minutes:
        run.step(loss)
    run.save()
    return run.average.eval().requires_grad_(False)


class _Run:
    def __init__(self, network: nn.Module, plan: Plan, path: Path) -> None:
        self.network, self.plan, self.path = network.train(), plan, path
        self.optimizer = torch.optim.AdamW(
            network.parameters(), lr=plan.rate, betas=(0.9, 0.99), weight_decay=1e-4
        )
        self.average = copy.deepcopy(network)
        self.steps, self.seconds, self._saved = 0, 0.0, time.monotonic()
        self._losses: list[Tensor] = []

    def step(self, loss: Callable[[int, float], Tensor]) -> None:
        started = time.monotonic()
        share = self.seconds / (60 * self.plan.minutes)
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(share)
        value = loss(self.steps * _processes() + _rank(), share)
        value.backward()
        self._share_gradients()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._average()
        self.steps += 1
        self.seconds = _mean(self.seconds + time.monotonic() - started)
        self._losses.append(value.detach())
        if self.steps % LOG_STEPS == 0:
            mean = torch.stack(self._losses).mean()
            logging.info("%s %d: %.4f, %.0f s", self.path.stem, self.steps, mean, self.seconds)
            self._losses = []
        if time.monotonic() - self._saved > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        self._saved = time.monotonic()
        if _rank():
            return
        part = self.path.with_suffix(".part")
        torch.save(self._state(), part)
        os.replace(part, self.path)

    def load(self) -> None:
        if not self.path.is_file():
            return
        state: dict[str, Any] = torch.load(self.path, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps, self.seconds = state["steps"], state["seconds"]

    def _state(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "steps": self.steps,
            "seconds": self.seconds,
        }

    def _rate(self, share: float) -> float:
        rising = min(1.0, (self.steps + 1) / self.plan.warmup_steps)
        return self.plan.rate * rising * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))

    def _share_gradients(self) -> None:
        if _processes() == 1:
            return
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        flat /= _processes()
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    @torch.no_grad()
    def _average(self) -> None:
        # Early weights are bad, so the average forgets faster at first.
        decay = min(self.plan.averaging, (1 + self.steps) / (10 + self.steps))
        pairs = zip(self.average.parameters(), self.network.parameters(), strict=True)
        for mean, now in pairs:
            mean.lerp_(now, 1 - decay)


def _processes() -> int:
    return distributed.get_world_size() if distributed.is_initialized() else 1


def _rank() -> int:
    return distributed.get_rank() if distributed.is_initialized() else 0


def _mean(value: float) -> float:
    """Return the mean over all processes, so that they agree when to stop."""
    if _processes() == 1:
        return value
    shared = torch.tensor(value, dtype=torch.float64)
    distributed.all_reduce(shared)
    return float(shared) / _processes()
