"""Feature banks on ComfyUI's UNet, strong enough to matter to random weights."""

import torch
from host_stream import SIZE, Stream, core, relative_error

# Frames 0 and 2 are taken in, so that 3 and 4 see what was merged.
COUNT = 5
# Batches of other sizes round differently, and GroupNorm over the two pixels of the deepest level
# blows that up; mistakes are 1e-2 and more.
ROUNDING = 1e-3
SETTINGS = {"interval": 2, "similarity_threshold": 0.3}


def banked(model, **settings):
    """Apply a feature bank to a ModelPatcher."""
    config = core("feature_bank.bank").BankConfig(**{**SETTINGS, **settings})
    return core("feature_bank.patch").apply_feature_bank(model, config)


@torch.inference_mode()
def one_row_per_call(model, latents, size=SIZE, **settings):
    """The same stream, without rows that share a batch."""
    with Stream(model, size, len(latents), **settings) as stream:
        host = stream.host
        stream.session.model = lambda x, plan: torch.cat(
            [host(x[rows], part) for rows, part in plan.by_step()]
        )
        return stream.run(latents)


def differ(*clips):
    """Whether no two clips are alike."""
    return all(
        relative_error(clip, other) > 1e-3
        for index, clip in enumerate(clips)
        for other in clips[:index]
    )
