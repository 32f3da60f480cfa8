"""Streams on two checkouts: of this layout, and of b9e4673, whose engine is one flat folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# The warm-up of 8 and the rest of the window of 16; a multiple of the bank's interval of 4.
WARM = 24


class Stream:
    """A stream of latents on one checkout, of this layout or of b9e4673's flat one."""

    def __init__(self, checkout: Path, engine: SimpleNamespace, model: Any, steps: int) -> None:
        """Start a stream of `model` at T = `steps`; nothing is loaded yet."""
        import torch

        unet = model.model.model_config.unet_config
        size = (8, 16) if unet["model_channels"] < 320 else (32, 32)
        self._draw = torch.Generator().manual_seed(0)
        prompt = [[torch.randn(1, 77, unet["context_dim"], generator=self._draw), {}]]
        schedule = engine.sd15_model.host_schedule(model, 4, steps / 4)
        guidance, self._size = engine.guidance.Guidance(), size
        if is_flat(checkout):
            self._host = engine.host_model.HostModel(
                model, prompt, prompt, guidance, schedule, size, None
            )
            session = engine.stream_start.start_session(model, schedule, 0, guidance)
            session.attach(self._host, None)
            self._open: Callable[[], None] = lambda: None
            self._push: Callable[[Any], Any] = session.push
        else:
            spec = engine.spec.StreamSpec(model, prompt, prompt, schedule, guidance, seed=0)
            self._host, session = spec.open(size, None).model, spec.start()
            self._open = lambda: session.open(self._host)
            self._push = lambda latent: session.push(self._host, latent)

    def __enter__(self) -> Stream:
        """Load the model, and push until the window is full."""
        self._host.__enter__()
        self._open()
        self.push(WARM)
        return self

    def __exit__(self, *error: Any) -> None:
        """Release the model."""
        self._host.__exit__(*error)

    def push(self, frames: int) -> float:
        """Push random frames; return the seconds per frame."""
        import torch

        latents = torch.randn(frames, 4, *self._size, generator=self._draw)
        start = time.perf_counter()
        for latent in latents:
            self._push(latent)
        return (time.perf_counter() - start) / frames


def is_flat(checkout: Path) -> bool:
    """Whether a checkout has the engine's modules in one folder, as b9e4673."""
    return not (checkout / "live2diff_core" / "run").is_dir()


def put_memory(
    name: str, checkout: Path, engine: SimpleNamespace, plain: Any, motion_file: Path
) -> tuple[Any, Any]:
    """Put a memory on the plain model; return the MODEL, and the motion module or None."""
    flat, live = is_flat(checkout), engine.live2diff_patch
    if name == "Live2Diff":
        motion = live.load_motion_module(str(motion_file))
        window = engine.config.StreamConfig() if flat else engine.window.AttentionWindow()
        return live.apply_live2diff(plain, motion, window), motion.model
    if name == "feature bank":
        bank = engine.feature_bank if flat else engine.bank
        return engine.feature_bank_patch.apply_feature_bank(plain, bank.BankConfig()), None
    return plain, None
