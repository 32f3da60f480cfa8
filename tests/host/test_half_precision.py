"""Streams in float16 and bfloat16 stay close to float32, from the first frame to the last."""

import pytest
import torch
from host_stream import computing_in, core, frames, patched, translate

COUNT, SIZE = 12, (8, 16)
# What the small UNet itself makes of rounding, without any memory: measured 0.023 and 0.073.
LIMITS = {torch.float16: 0.04, torch.bfloat16: 0.12}
# Times that with a memory, at most; measured 1.2 to 2.5.
FACTOR = 4


def banked(model):
    config = core("feature_bank.bank").BankConfig(interval=2, similarity_threshold=0.5)
    return core("feature_bank.patch").apply_feature_bank(model, config)


MEMORIES = {
    "no memory": lambda model, motion: model,
    "motion module": lambda model, motion: patched(model, motion, 8, 3),
    "feature bank": lambda model, motion: banked(model),
    "both": lambda model, motion: banked(patched(model, motion, 8, 3)),
}


@pytest.fixture(scope="module")
def error_of():
    """Root mean square errors of all frames, each relative to its float32 frame."""
    known = {}

    def measure(sd15, motion, dtype, memory):
        if (dtype, memory) not in known:
            half = computing_in(sd15, dtype)
            # With the same rounded weights, so that only the arithmetic differs.
            exact = computing_in(half, torch.float32)
            depth = frames(COUNT, SIZE, seed=1) if memory in ("motion module", "both") else None
            found, expected = (
                translate(MEMORIES[memory](model, motion), frames(COUNT, SIZE), depth)
                for model in (half, exact)
            )
            off, whole = ((x**2).mean((1, 2, 3)) for x in (found - expected, expected))
            known[dtype, memory] = (off / whole).sqrt()
        return known[dtype, memory]

    return measure


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("dtype", LIMITS, ids=str)
def test_half_precision_is_close_to_float32(sd15, motion, error_of, dtype, memory):
    plain = error_of(sd15, motion, dtype, "no memory")
    errors = error_of(sd15, motion, dtype, memory)
    assert errors.isfinite().all()
    assert plain.max() < LIMITS[dtype]
    assert errors.mean() < FACTOR * plain.mean()
    # The worst frame: measured 0.051 and 0.108 at most.
    assert errors.max() < 2 * LIMITS[dtype]
    # What is rounded in a cache is read again and again; it must not add up.
    early, late = errors[4:].chunk(2)
    assert late.mean() < 2 * early.mean()
