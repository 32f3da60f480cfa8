"""Trains the sample's UNet and text encoder: styles by prompt, in two steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from live2diff_core.sample_model.networks import (
    LATENT_DEVIATION,
    build_base,
    build_text_encoder,
)
from live2diff_core.stream.schedule import few_step_timesteps

from .fitting import Plan, fit
from .prompts import draw
from .styles import STYLES
from .weights import initialise, zero

# Sides of the crops in latent pixels, and crops in a batch, from a share of the time on. Attention
# makes large ones costly, but whole pictures are larger still.
CROPS = ((0.0, 16, 12), (0.6, 24, 5), (0.85, 32, 3))
# Shares of the styles as targets, in the order of `STYLES`. Photographs are what the model knows
# already; pencil and pixel art are the hardest.
SHARES = {"photograph": 0.06, "watercolour": 0.18, "pencil": 0.26, "neon": 0.22, "pixel art": 0.28}
PLAN = Plan(minutes=80, rate=1e-3)
PHOTOGRAPH = list(STYLES).index("photograph")
# The steps of the bundled workflows: 4, of which denoise 0.5 leaves two.
FEW_STEPS = tuple(few_step_timesteps(4, 0.5))
# Shares of a batch: at those steps; begun from the photograph, as a translation begins.
AT_FEW_STEPS, FROM_PHOTOGRAPH = 0.65, 0.75
# From this share of the time on, later steps begin with what the model made of the first one.
OWN_STEPS_FROM = 0.4


class Denoiser(nn.Module):
    """A UNet and the text encoder that is trained with it."""

    def __init__(self) -> None:
        """Make both with fresh weights."""
        super().__init__()
        self.unet = initialise(build_base(torch.float32).diffusion_model)
        self.text = initialise(build_text_encoder())
        nn.init.normal_(self.text.text_model.embeddings.token_embedding.weight, std=0.3)
        nn.init.normal_(self.text.text_model.embeddings.position_embedding.weight, std=0.05)
        # The host adds in place to what the norms still need for their gradients.
        for layer in self.text.text_model.encoder.layers:
            for norm in (layer.layer_norm1, layer.layer_norm2):
                norm.register_forward_pre_hook(lambda _, inputs: (inputs[0].clone(),))
        zero(self.unet.out[-1])
        for module in self.unet.modules():
            if hasattr(module, "proj_out") or hasattr(module, "out_layers"):
                zero(module.proj_out if hasattr(module, "proj_out") else module.out_layers[-1])

    def forward(self, x: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        """Predict the noise in x [N, 4, h, w] at `timesteps` [N], for prompts [N, 77]."""
        context = self.text(tokens)[0]
        return self.unet(x, timesteps, context=context, transformer_options={})


@dataclass(frozen=True)
class Levels:
    """Signal and noise of every timestep of a schedule, [1000] each."""

    signal: Tensor
    noise: Tensor

    @classmethod
    def linear(cls, betas: Tensor) -> Levels:
        """Make them from the betas."""
        alphas = torch.cumprod(1 - betas.double(), 0)
        return cls(alphas.sqrt().float(), (1 - alphas).sqrt().float())

    def mix(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Add noise to [N, 4, h, w] at [N] timesteps."""
        signal, level = (_columns(part[timesteps]) for part in (self.signal, self.noise))
        return signal * clean + level * noise

    def clean(self, x: Tensor, eps: Tensor, timesteps: Tensor) -> Tensor:
        """Return x0 of x [N, 4, h, w] and its noise."""
        signal, level = (_columns(part[timesteps]) for part in (self.signal, self.noise))
        return (x - level * eps) / signal


def schedules() -> tuple[Levels, Levels]:
    """Return SD1.5's schedule, and that of motion modules: workflows run both."""
    first, last = 0.00085, 0.012
    return (
        Levels.linear(torch.linspace(first**0.5, last**0.5, 1000, dtype=torch.float64) ** 2),
        Levels.linear(torch.linspace(first, last, 1000, dtype=torch.float64)),
    )


@dataclass(frozen=True)
class Batch:
    """N crops in their styles.

    Attributes:
        tokens: [N, 77].
        timesteps: [N].
        target, photograph: [N, 4, h, w] latents: in the style of the prompt, and as they were.
        from_photograph: [N] bool, whether the photograph is noised, as in a translation.
        noise: [2, N, 4, h, w], of this step, and of the one before it.
    """

    tokens: Tensor
    timesteps: Tensor
    target: Tensor
    photograph: Tensor
    from_photograph: Tensor
    noise: Tensor


class Batches:
    """Draws batches as a function of the step.

    Args:
        latents: [N, styles, 4, H, W] of deviation 1.
        tokenize: turns prompts into [N, 77] tokens.
    """

    def __init__(self, latents: np.ndarray, tokenize: Callable[[list[str]], Tensor]) -> None:
        """Keep what batches are drawn from."""
        self._latents, self._tokenize = latents, tokenize

    def draw(self, step: int, share: float = 0.0) -> Batch:
        """Draw the batch of a step."""
        _, crop, size = max(stage for stage in CROPS if stage[0] <= share)
        random = np.random.default_rng((3, step))
        chosen = random.integers(len(self._latents), size=size)
        styles = random.choice(len(STYLES), size, p=list(SHARES.values()))
        # Squares of pixel art are two latent pixels wide, and begin at even ones.
        top, left = 2 * random.integers((self._latents.shape[-1] - crop) // 2 + 1, size=(2, size))
        target, photograph = (
            np.stack(
                [
                    self._latents[n, s, :, y : y + crop, x : x + crop]
                    for n, s, y, x in zip(chosen, which, top, left, strict=True)
                ]
            ).astype(np.float32)
            * np.float32(LATENT_DEVIATION)
            for which in (styles, np.full(size, PHOTOGRAPH))
        )
        timesteps = np.where(
            random.random(size) < AT_FEW_STEPS,
            random.choice(FEW_STEPS, size),
            random.integers(19, 800, size),
        )
        # Late in denoising, little of a photograph is left in a translation.
        from_photograph = (random.random(size) < FROM_PHOTOGRAPH) & (timesteps > 350)
        names = list(STYLES)
        return Batch(
            self._tokenize([draw(names[style], random) for style in styles]),
            torch.from_numpy(timesteps),
            *(torch.from_numpy(part) for part in (target, photograph, from_photograph)),
            torch.from_numpy(random.standard_normal((2, *target.shape), np.float32)),
        )


def loss(model: Denoiser, batch: Batch, levels: Levels, own_steps: bool) -> Tensor:
    """Compare the predicted clean latents with the target's.

    With `own_steps`, rows at the last of the few steps begin with what the model makes of the
    photograph in the first one, so that it learns to finish its own work.
    """
    start = torch.where(_columns(batch.from_photograph), batch.photograph, batch.target)
    if own_steps:
        start = _after_first_step(model, batch, levels, start)
    x = levels.mix(start, batch.noise[0], batch.timesteps)
    found = levels.clean(x, model(x, batch.timesteps, batch.tokens), batch.timesteps)
    # Clean latents count alike, as few steps need it, but for levels so noisy that little of them
    # can be known.
    ratio = LATENT_DEVIATION * levels.signal[batch.timesteps] / levels.noise[batch.timesteps]
    weight = _columns(ratio.square()).clamp(max=1)
    error = (found - batch.target) / LATENT_DEVIATION
    slopes = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return (weight * error.square()).mean() + 0.1 * slopes


@torch.no_grad()
def _after_first_step(model: Denoiser, batch: Batch, levels: Levels, start: Tensor) -> Tensor:
    """Replace the start of rows at the last step by the result of a first one."""
    rows = (batch.timesteps == FEW_STEPS[1]).nonzero()[:, 0]
    if not len(rows):
        return start
    first = torch.full_like(rows, FEW_STEPS[0])
    x = levels.mix(batch.photograph[rows], batch.noise[1][rows], first)
    made = levels.clean(x, model(x, first, batch.tokens[rows]), first)
    return start.index_copy(0, rows, made)


def train(
    latents: np.ndarray, tokenize: Callable[[list[str]], Tensor], work: Path, plan: Plan = PLAN
) -> Denoiser:
    """Train on latents [N, styles, 4, H, W] of deviation 1."""
    torch.manual_seed(0)
    model, both = Denoiser(), schedules()
    batches = Batches(latents, tokenize)

    def step_loss(step: int, share: float) -> Tensor:
        return loss(model, batches.draw(step, share), both[step % 2], share >= OWN_STEPS_FROM)

    return fit(model, step_loss, plan, work / "denoiser.pt")


def _columns(values: Tensor) -> Tensor:
    return values[:, None, None, None]
