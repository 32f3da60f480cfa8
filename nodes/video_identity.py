"""Names a run of Stream Video by everything that decides its result, so that it can be resumed."""

import hashlib
from io import BytesIO
from pathlib import Path
from typing import Any

from ..live2diff_core.host.conditioning_fingerprint import fingerprint_conditioning
from ..live2diff_core.host.model_fingerprint import fingerprint_model, fingerprint_module

_EDGE_BYTES = 1 << 20


def run_settings(inputs: Any) -> dict[str, Any]:
    """Name what `VideoInputs` hold: JSON values by name."""
    prompts = ["positive", "negative"] if inputs.guidance.uses_negative else ["positive"]
    depth = inputs.depth_model
    schedule, base = inputs.schedule, inputs.model.model
    return {
        **fingerprint_model(inputs.model),
        "computes in": str(base.manual_cast_dtype or base.get_dtype()),
        **{kind: fingerprint_conditioning(getattr(inputs, kind)) for kind in prompts},
        "vae": fingerprint_module(inputs.vae.first_stage_model),
        "depth model": "none" if depth is None else fingerprint_module(depth.patcher.model),
        "timesteps": list(schedule.timesteps),
        "sigmas": [round(sigma, 6) for sigma in schedule.sigmas.tolist()],
        "seed": inputs.seed,
        "guidance": str(inputs.guidance),
        "shared noise": inputs.shared_noise,
        "frame filter": str(inputs.frame_filter),
        "step scalings": [round(scaling, 6) for scaling in schedule.c_skip.tolist()],
        "checkpoint every": inputs.checkpoint_every,
    }


def source_identity(source: str | BytesIO) -> str:
    """Name a video by its size and by what is at its beginning and its end.

    Pictures are named by their sizes and times: many kinds have the same size whatever they show.
    """
    if isinstance(source, BytesIO):
        return _edges(source, source.getbuffer().nbytes)
    path = Path(source)
    if path.is_file():
        with path.open("rb") as file:
            return _edges(file, path.stat().st_size)
    folder = path if path.is_dir() else path.parent
    stats = [(file.name, file.stat()) for file in sorted(folder.iterdir())]
    files = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    return hashlib.sha256(repr((path.name, files)).encode()).hexdigest()[:16]


def _edges(file: Any, size: int) -> str:
    digest = hashlib.sha256(str(size).encode())
    for position in (0, max(0, size - _EDGE_BYTES)):
        file.seek(position)
        digest.update(file.read(_EDGE_BYTES))
    return digest.hexdigest()[:16]
