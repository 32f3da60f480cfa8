"""MiDaS DPT-hybrid under ComfyUI's memory management.

The network's code comes from the package controlnet-aux (which uses timm), its weights from a
local file, and the host decides which device holds them. Nothing is ever downloaded here.

Legend: F frames, H W height and width of a frame, S = 384 the network's own size.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import comfy.model_management
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import interpolate

from ..host.whole_patcher import whole_patcher
from .file import check_layout, read_weights

SIZE = 384
DEFAULT_BATCH_SIZE = 4

# Activations of one frame in float32: 160 to 360 MB were measured on the CPU, plus a margin.
_FRAME_BYTES = 400 * 1024**2
_MIDAS_ALIAS = "live2diff_controlnet_aux_midas"
_INSTALL = (
    "Install it with: pip install -r requirements.txt (in the folder of comfyui-live2diff, with "
    "the Python that runs ComfyUI)."
)


class DepthModel:
    """A depth network. `predict` loads it and runs it on a clip.

    Streams load `patcher` beside their other models, in one go, and then call `infer`: loading it
    by itself could take the others from the device again.

    Attributes:
        patcher: the host's ModelPatcher of the weights.
        load_device: the device on which the network runs.
        dtype: float16 where the host computes in it, float32 elsewhere and always on the CPU.
    """

    def __init__(self, network: nn.Module, release: Callable[[], None] | None = None) -> None:
        """Put a network under the host's management.

        Args:
            network: maps [F, 3, S, S] in -1..1 to inverse depth [F, S, S].
            release: called after every run, to free what the network still holds.
        """
        management = comfy.model_management
        self.load_device: torch.device = management.get_torch_device()
        self.dtype = (
            torch.float16 if management.should_use_fp16(self.load_device) else torch.float32
        )
        network.eval().requires_grad_(False).to(self.dtype)
        self._release = release
        # Unlike the host's layers, timm's cannot load their weights when they run.
        self.patcher = whole_patcher(network, self.load_device, management.unet_offload_device())

    @classmethod
    def from_file(cls, path: str | Path) -> DepthModel:
        """Load DPT-hybrid from a local file, recognised by its tensors, not by its name.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, holds code, or is another model.
            ImportError: controlnet-aux or timm is missing or broken.
        """
        path = Path(path)
        weights = read_weights(path)
        network = build_network()
        check_layout(weights, network, path)
        # Not strict: the unused classifier may be missing, and extra tensors are ignored.
        network.load_state_dict(weights, strict=False)
        # controlnet-aux keeps the backbone's features in a dict of the module, where they would
        # hold VRAM after the run.
        features: dict[str, Tensor] = network.pretrained.activations  # type: ignore
        return cls(network, release=features.clear)

    def load(self, batch_size: int = 1) -> None:
        """Load the weights to `load_device`, with room for batches of `batch_size` frames."""
        comfy.model_management.load_models_gpu(
            [self.patcher], memory_required=batch_size * self.working_bytes
        )

    @torch.no_grad()
    def infer(self, images: Tensor, exact: bool = False) -> Tensor:
        """Run the network once on loaded weights (see `load`).

        Frames are scaled to -1..1 and stretched to SxS without antialiasing, as in Live2Diff's
        released code.

        Args:
            images: [F, H, W, 3] in 0..1, on any device.
            exact: compute in float32 whatever `dtype` is, which needs room for a copy of the
                weights.

        Returns:
            [F, S, S] float32 inverse depth on `load_device`: at least 0, without a unit; larger is
            nearer. NaN or infinite where the network overflows.
        """
        frames = images.to(self.load_device, torch.float32).movedim(-1, 1) * 2.0 - 1.0
        frames = interpolate(frames, (SIZE, SIZE), mode="bilinear", align_corners=False)
        network = self.patcher.model
        try:
            if exact and self.half:
                return functional_call(network, self._float32_weights(), (frames,))
            return network(frames.to(self.dtype)).float()
        finally:
            if self._release is not None:
                self._release()

    def predict(
        self,
        images: Tensor,
        batch_size: int = DEFAULT_BATCH_SIZE,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Load the weights and estimate the depth of a clip in batches, at the network's own size.

        The released code normalises the result first and resizes it afterwards (`resize_depth`).

        Args:
            images: [F, H, W, 3] in 0..1, F at least 1.
            batch_size: most frames per batch, fewer if VRAM is short, also when it runs out on the
                way; affects only rounding.
            progress: called after each batch with (frames done, all frames).

        Returns:
            [F, S, S] float32 inverse depth, on the host's intermediate device.

        Raises:
            comfy.model_management.InterruptProcessingException: the user stopped the run.
            RuntimeError: the network returned NaN or infinite depth, in float32, too.
        """
        frames = images.shape[0]
        batch_size = self._fitting_batch(min(batch_size, frames))
        self.load(batch_size)
        device = comfy.model_management.intermediate_device()
        depth = torch.empty((frames, SIZE, SIZE), dtype=torch.float32, device=device)
        stop = 0
        while stop < frames:
            comfy.model_management.throw_exception_if_processing_interrupted()
            start = stop
            found = self._infer_fitting(images[start : start + batch_size])
            batch_size = len(found)
            stop = start + batch_size
            depth[start:stop] = found
            if progress is not None:
                progress(stop, frames)
        return depth

    def _infer_fitting(self, images: Tensor) -> Tensor:
        """Run the network on the first of `images`: on all, unless memory runs out.

        Where the depth is not finite, it is computed once more in float32.
        """
        count = len(images)
        while True:
            try:
                return self._infer_finite(images[:count])
            except Exception as error:
                if not comfy.model_management.is_oom(error) or count == 1:
                    raise
            # Behind the handler, because the error holds the tensors of the failed try.
            comfy.model_management.soft_empty_cache()
            count //= 2
            logging.warning(
                "Live2Diff: out of memory: depth goes on with batches of %d frames.", count
            )

    def _infer_finite(self, images: Tensor) -> Tensor:
        depth = self.infer(images)
        if self.half and not torch.isfinite(depth).all():
            depth = self.infer(images, exact=True)
        _check_finite(depth, self.dtype)
        return depth

    @property
    def half(self) -> bool:
        """Whether it computes in less than float32, so that trying again in float32 may help."""
        return self.dtype != torch.float32

    def _float32_weights(self) -> dict[str, Tensor]:
        """Return a copy of the weights in float32 on `load_device`."""
        return {
            name: tensor.to(self.load_device, torch.float32 if tensor.is_floating_point() else None)
            for name, tensor in self.patcher.model.state_dict().items()
        }

    @property
    def working_bytes(self) -> int:
        """Bytes that one frame needs beside the weights."""
        return _FRAME_BYTES * self.dtype.itemsize // 4

    def _fitting_batch(self, wanted: int) -> int:
        """Reduce a batch of `wanted` frames to the number that an otherwise empty device holds."""
        total = comfy.model_management.get_total_memory(self.load_device)
        room = total - self.patcher.model_size()
        return max(1, min(wanted, int(room // self.working_bytes)))


def resize_depth(depth: Tensor, height: int, width: int) -> Tensor:
    """Resize depth [F, S, S] to [F, height, width], bilinear as in the released code."""
    size = (height, width)
    return interpolate(depth[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def build_network() -> nn.Module:
    """Create DPT-hybrid with random weights, from [F, 3, S, S] in -1..1 to [F, S, S].

    Raises:
        ImportError: controlnet-aux or timm is missing or broken.
    """
    midas = _import_midas()
    with warnings.catch_warnings():
        # A newer timm has renamed this backbone, and warns about it at every start.
        warnings.simplefilter("ignore")
        # Without a path, no file is read, and controlnet-aux requests an uninitialised backbone
        # from timm, so that nothing is downloaded.
        return midas.DPTDepthModel(path=None, backbone="vitb_rn50_384", non_negative=True)


def _import_midas() -> ModuleType:
    """Import controlnet-aux's MiDaS folder alone, as a package under an alias.

    Importing `controlnet_aux` itself runs all of its detectors. That takes seconds, loads OpenCV,
    replaces models in timm's registry, and fails where mediapipe 0.10.30 or newer is installed
    (huggingface/controlnet_aux issue 122). The MiDaS folder needs torch and timm only.
    """
    name = f"{_MIDAS_ALIAS}.dpt_depth"
    if name in sys.modules:
        return sys.modules[name]
    package = importlib.util.find_spec("controlnet_aux")
    if package is None or not package.submodule_search_locations:
        raise ImportError(f"Depth needs the Python package controlnet-aux. {_INSTALL}")
    folder = Path(package.submodule_search_locations[0], "midas", "midas")
    spec = importlib.util.spec_from_file_location(
        _MIDAS_ALIAS, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or not (folder / "dpt_depth.py").is_file():
        raise ImportError(f"The controlnet-aux at {folder.parent.parent} has no MiDaS. {_INSTALL}")
    sys.modules[_MIDAS_ALIAS] = importlib.util.module_from_spec(spec)
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"controlnet-aux could not be imported ({error}). {_INSTALL}") from error


def _check_finite(depth: Tensor, dtype: torch.dtype) -> None:
    if torch.isfinite(depth).all():
        return
    tried = "" if dtype == torch.float32 else f" in {dtype}, and in float32, too"
    raise RuntimeError(
        f"The depth model gave NaN or infinite depth{tried}: its file may be damaged. Load another "
        "copy of it."
    )
