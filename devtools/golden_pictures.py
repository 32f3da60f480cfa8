"""Pictures on a device: bytes that cross, are translated, read back, saved and moved to RAM."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

from devtools.golden_measures import noting_waits

HEIGHT, WIDTH, MULTIPLE = 64, 128, 8


class RandomVAE:
    """A VAE of one random layer each way, as far as a stream uses ComfyUI's."""

    latent_dim, latent_channels = 2, 4

    def __init__(self, device: str) -> None:
        """Draw the layers on `device`."""
        import comfy.model_patcher
        import torch

        self.device, self.vae_dtype = torch.device(device), torch.float32
        generator = torch.Generator().manual_seed(5)
        down, up = torch.randn(2, 4, 3, MULTIPLE, MULTIPLE, generator=generator).to(device)
        self.first_stage_model = torch.nn.Module()
        self.first_stage_model.encode = lambda pixels: torch.nn.functional.conv2d(
            pixels, down * 0.05, stride=MULTIPLE
        )
        self.first_stage_model.decode = lambda latents: torch.nn.functional.conv_transpose2d(
            latents, up * 0.1, stride=MULTIPLE
        )
        self.patcher = comfy.model_patcher.CoreModelPatcher(
            self.first_stage_model, load_device=self.device, offload_device=torch.device("cpu")
        )
        self.memory_used_encode = self.memory_used_decode = lambda shape, dtype: 1
        self.process_input = lambda pictures: pictures * 2.0 - 1.0
        self.process_output = lambda pictures: pictures.add_(1.0).div_(2.0).clamp_(0.0, 1.0)


class RandomDepth:
    """A depth model that takes brightness for depth, as far as a stream uses ours."""

    working_bytes = 1
    half = False

    def __init__(self, vae: RandomVAE) -> None:
        """Compute where `vae` does."""
        self.patcher, self._device = vae.patcher, vae.device

    def infer(self, images: Any, exact: bool = False) -> Any:
        """From [F, H, W, 3] to [F, H, W]."""
        return images.to(self._device).mean(-1)


class Pictures:
    """A stream of random pictures of bytes, at T=2."""

    def __init__(self, engine: SimpleNamespace, model: Any, device: str, depth: bool) -> None:
        """Describe the stream; nothing is loaded yet."""
        import torch

        self._engine, self._draw = engine, torch.Generator().manual_seed(2)
        vae, prompt = RandomVAE(device), [[torch.randn(1, 77, 32, generator=self._draw), {}]]
        self._spec = engine.spec.StreamSpec(
            model,
            prompt,
            prompt,
            engine.sd15_model.host_schedule(model, 4, 0.5),
            engine.guidance.Guidance(),
            seed=0,
            vae=vae,
            depth_model=RandomDepth(vae) if depth else None,
        )

    def check(
        self, name: str, warm: int, set_mode: Callable[[str], object]
    ) -> Iterator[tuple[str, bool]]:
        """Yield (what was found, whether it is good), with `warm` frames to fill the window."""
        import torch

        shape = (2 * warm, HEIGHT, WIDTH, 3)
        frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=self._draw)
        expected = self._one_by_one(frames, lambda translator, opened: None)
        found, waits = self._beside_a_thread(frames, warm, set_mode)
        yield waits.verdict(f"{name}, pictures, waits of ours in {warm} frames")
        yield f"{name}, pictures read back by another thread, the same", found == expected
        moved = self._one_by_one(frames, _to_ram)
        yield f"{name}, moved to RAM and back at every frame, the same", moved == expected
        saved = self._one_by_one(frames, _saved_and_loaded)
        yield f"{name}, saved and loaded at every frame, the same", saved == expected

    def _opened(self) -> Any:
        return self._spec.open((HEIGHT // MULTIPLE, WIDTH // MULTIPLE), None)

    def _one_by_one(self, frames: Any, between: Callable[[Any, Any], object]) -> list[bytes]:
        """Translate frames, each waited for at once; `between` them, do something else."""
        translator, out = self._spec.start_translator(eight_bit=True), []
        with self._opened() as opened:
            translator.open(opened)
            for frame in frames:
                out += [copy.get().numpy().tobytes() for copy in translator.push(opened, frame)]
                between(translator, opened)
            out += [copy.get().numpy().tobytes() for copy in translator.drain(opened)]
        return out

    def _beside_a_thread(
        self, frames: Any, warm: int, set_mode: Callable[[str], object]
    ) -> tuple[list[bytes], Any]:
        """Translate frames as Stream Video does, with a thread that waits for them."""
        translator, out = self._spec.start_translator(eight_bit=True), []

        def write(copies: Any) -> None:
            out.extend(copy.get().numpy().tobytes() for copy in copies)

        with self._opened() as opened, self._engine.background.BackgroundCalls(4) as writer:
            translator.open(opened)
            for frame in frames[:warm]:
                finished = translator.push(opened, frame)
                writer.submit(lambda finished=finished: write(finished))
            with noting_waits(set_mode) as waits:
                for frame in frames[warm:]:
                    finished = translator.push(opened, frame)
                    writer.submit(lambda finished=finished: write(finished))
            rest = list(translator.drain(opened))
            writer.submit(lambda: write(rest))
        return out, waits


def _to_ram(translator: Any, opened: Any) -> None:
    import torch

    translator.to(torch.device("cpu"))
    translator.to(opened.device)
    translator.open(opened)


def _saved_and_loaded(translator: Any, opened: Any) -> None:
    state = {name: tensor.cpu().clone() for name, tensor in translator.state_dict().items()}
    translator.load_state_dict(state, opened.device)
    translator.open(opened)
