"""The processes and devices of a run."""

from __future__ import annotations

from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs

from .config import TrainingConfig


def make_accelerator(config: TrainingConfig) -> Accelerator:
    """Find them as `accelerate launch` has set them up, before the host is imported.

    Weights are cast by the host's layers, not by autocast. Position tables are the modules' only
    buffers, and the same everywhere.
    """
    return Accelerator(
        cpu=config.device == "cpu",
        mixed_precision="no",
        log_with="tensorboard",
        project_dir=config.output,
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )
