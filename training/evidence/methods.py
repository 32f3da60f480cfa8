"""The rows of the tables: which motion module, which mask and which memories translate a clip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from live2diff_core.feature_bank.bank import BankConfig
from live2diff_core.feature_bank.patch import apply_feature_bank
from live2diff_core.live2diff.patch import apply_live2diff, load_motion_module
from live2diff_core.live2diff.window import AttentionMode, AttentionWindow

# Options of train.py for each motion module. All else is the sample model's configuration.
MODULES: Mapping[str, Mapping[str, Any]] = {
    "figure-1a": {"attention_mode": AttentionMode.BIDIRECTIONAL.value, "depth": False},
    "figure-1b": {"attention_mode": AttentionMode.SLIDING.value, "depth": False},
    "figure-1c": {"attention_mode": AttentionMode.CAUSAL.value, "depth": False},
    "figure-1d": {"attention_mode": AttentionMode.CAUSAL_WARMUP.value, "depth": False},
    "figure-1d-depth": {"attention_mode": AttentionMode.CAUSAL_WARMUP.value, "depth": True},
}


@dataclass(frozen=True)
class Method:
    """One row.

    Attributes:
        name: by which its measurements are kept.
        title: what people read.
        module: of `MODULES`; None for no motion module.
        mode: the mask at inference.
        bank: whether the feature bank is used.
    """

    name: str
    title: str
    module: str | None = None
    mode: AttentionMode = AttentionMode.CAUSAL_WARMUP
    bank: bool = False

    @property
    def reads_depth(self) -> bool:
        """Whether its frames need depth."""
        return self.module is not None and bool(MODULES[self.module]["depth"])

    def applied(self, model: Any, modules: Path) -> Any:
        """Return a clone of the MODEL with what the method adds; `modules` holds `MODULES`."""
        if self.module is not None:
            motion = load_motion_module(str(module_file(modules, self.module)))
            model = apply_live2diff(model, motion, AttentionWindow(attention_mode=self.mode))
        return apply_feature_bank(model, BankConfig()) if self.bank else model


def module_file(modules: Path, name: str) -> Path:
    """Return the file of a motion module that `train_modules` wrote."""
    return modules / name / "motion_module.safetensors"


PER_FRAME = Method("per-frame", "frame by frame")
BANK = Method("bank", "feature bank (StreamV2V)", bank=True)
A = Method("A", "A: trained without warm-up", "figure-1c", AttentionMode.CAUSAL)
B = Method("B", "B: warm-up in training only", "figure-1d", AttentionMode.CAUSAL)
C = Method("C", "C: warm-up in both", "figure-1d")
D = Method("D", "D: warm-up and depth (Live2Diff)", "figure-1d-depth")
BOTH = Method("both", "D and feature bank", "figure-1d-depth", bank=True)
CHUNKS = Method("1a", "1a: bidirectional chunks", "figure-1a", AttentionMode.BIDIRECTIONAL)
SLIDING = Method("1b", "1b: overlapping chunks", "figure-1b", AttentionMode.SLIDING)

ABLATION = (A, B, C, D)
MASKS = (CHUNKS, SLIDING, A, C)
BASELINES = (PER_FRAME, BANK, D, BOTH)
METHODS = tuple(dict.fromkeys((*BASELINES, *ABLATION, *MASKS)))
