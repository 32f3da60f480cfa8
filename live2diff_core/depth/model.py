"""MiDaS DPT-hybrid under ComfyUI's memory management.

The code of the network comes from the package controlnet-aux (and timm below it), its weights from
a local file, its place in memory from the host. Nothing here is ever downloaded.

Legend: N frames of one batch, F frames, H W frame height and width, S = 384 the network's size.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import comfy.model_management
import comfy.model_patcher
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from .file import check_layout, read_weights

SIZE = 384
DEFAULT_BATCH_SIZE = 4

# Activations of one frame in float32: measured 160 to 360 MB on the CPU, and some air.
_FRAME_BYTES = 400 * 1024**2
_MIDAS_ALIAS = "live2diff_controlnet_aux_midas"
_INSTALL = (
    "Install it with: pip install -r requirements.txt (in the folder of comfyui-live2diff, with "
    "the Python that runs ComfyUI)."
)


class DepthModel:
    """A depth network, loaded once and run on as many frames as come.

    `estimate` and `predict` do everything for a clip. A stream that runs depth frame by frame
    calls `load` once per node run and then `infer` per frame.

    Attributes:
        patcher: the host's handle on the weights.
        load_device: where it computes.
        dtype: float16 where the host computes in it, float32 elsewhere and always on the CPU.
    """

    def __init__(self, network: nn.Module) -> None:
        """Put `network`, [N, 3, S, S] in -1..1 to [N, S, S], under the host's management."""
        management = comfy.model_management
        self.load_device: torch.device = management.get_torch_device()
        self.dtype = (
            torch.float16 if management.should_use_fp16(self.load_device) else torch.float32
        )
        network.eval().requires_grad_(False).to(self.dtype)
        self.patcher = comfy.model_patcher.CoreModelPatcher(
            network, load_device=self.load_device, offload_device=management.unet_offload_device()
        )

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
        # Not strict: the unused classifier may be missing, and extra tensors do no harm.
        network.load_state_dict(weights, strict=False)
        return cls(network)

    def load(self, batch_size: int = 1) -> None:
        """Bring the weights to `load_device`, with room for batches of `batch_size` frames.

        Later loads of other models may evict them again: call it once per node run, after the
        host has loaded the others.
        """
        # In full, because timm's layers cannot stream their weights in as the host's own do.
        comfy.model_management.load_models_gpu(
            [self.patcher],
            memory_required=batch_size * self._frame_bytes(),
            force_full_load=True,
        )
        network = self.patcher.model
        if any(weight.device != self.load_device for weight in network.parameters()):
            # With --novram the host loads no model in full, however it is asked.
            network.to(self.load_device)

    @torch.no_grad()
    def infer(self, images: Tensor) -> Tensor:
        """Run the network once on loaded weights (see `load`).

        As Live2Diff's released code: frames to -1..1, stretched to SxS without antialiasing.

        Args:
            images: [N, H, W, 3] in 0..1, on any device.

        Returns:
            [N, S, S] float32 inverse depth on `load_device`, 0 or more, without unit; larger is
            nearer.
        """
        frames = images.to(self.load_device, torch.float32).movedim(-1, 1) * 2.0 - 1.0
        frames = interpolate(frames, (SIZE, SIZE), mode="bilinear", align_corners=False)
        network = self.patcher.model
        try:
            return network(frames.to(self.dtype)).float()
        finally:
            # controlnet-aux leaves the backbone's features in a dict of the module; unless emptied
            # it holds GPU memory after the run.
            network.pretrained.activations.clear()

    def predict(
        self,
        images: Tensor,
        batch_size: int = DEFAULT_BATCH_SIZE,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Load, then estimate a clip in batches, at the network's own size.

        Normalise this, then `resize_depth`: the order of the released code.

        Args:
            images: [F, H, W, 3] in 0..1, F at least 1.
            batch_size: most frames per run; fewer when memory is short. Changes rounding only.
            progress: called after each batch with frames done and frames in all.

        Returns:
            [F, S, S] float32 inverse depth, on the host's intermediate device.

        Raises:
            comfy.model_management.InterruptProcessingException: the user stopped the run.
            RuntimeError: the network gave NaN or infinite depth.
        """
        frames = images.shape[0]
        batch_size = self._fitting_batch(min(batch_size, frames))
        self.load(batch_size)
        device = comfy.model_management.intermediate_device()
        depth = torch.empty((frames, SIZE, SIZE), dtype=torch.float32, device=device)
        for start in range(0, frames, batch_size):
            comfy.model_management.throw_exception_if_processing_interrupted()
            stop = min(start + batch_size, frames)
            depth[start:stop] = self.infer(images[start:stop])
            _check_finite(depth[start:stop], self.dtype)
            if progress is not None:
                progress(stop, frames)
        return depth

    def estimate(
        self,
        images: Tensor,
        batch_size: int = DEFAULT_BATCH_SIZE,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Return the raw inverse depth of a clip at its own size.

        As `predict`, resized: [F, H, W, 3] in 0..1 to [F, H, W] float32.
        """
        height, width = images.shape[1:3]
        return resize_depth(self.predict(images, batch_size, progress), height, width)

    @property
    def working_bytes(self) -> int:
        """Memory that one frame takes beside the weights."""
        return self._frame_bytes()

    def _frame_bytes(self) -> int:
        return _FRAME_BYTES * self.dtype.itemsize // 4

    def _fitting_batch(self, wanted: int) -> int:
        """At most `wanted` frames, fewer when even an empty device could not hold their batch."""
        total = comfy.model_management.get_total_memory(self.load_device)
        room = total - self.patcher.model_size()
        return max(1, min(wanted, int(room // self._frame_bytes())))


def resize_depth(depth: Tensor, height: int, width: int) -> Tensor:
    """Resize depth [F, S, S] to [F, height, width], bilinear as in the released code."""
    size = (height, width)
    return interpolate(depth[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def build_network() -> nn.Module:
    """Return DPT-hybrid with random weights, [N, 3, S, S] in -1..1 to [N, S, S].

    Raises:
        ImportError: controlnet-aux or timm is missing or broken.
    """
    midas = _import_midas()
    with warnings.catch_warnings():
        # timm has renamed this backbone since, and says so at every start.
        warnings.simplefilter("ignore")
        # No path: nothing is read here. controlnet-aux asks timm for an empty backbone, so timm
        # downloads nothing either.
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
    remedy = "Start ComfyUI with --force-fp32." if dtype == torch.float16 else ""
    raise RuntimeError(
        f"The depth model gave NaN or infinite depth in {dtype}: its file may be damaged, or the "
        f"numbers overflow. {remedy}".rstrip()
    )
