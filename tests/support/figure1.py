"""Live2Diff's figure 1 written out over a whole sequence: what streaming must come to.

Written from the paper, not from `live2diff.window`: masks, and attention that adds positions to its
inputs and recomputes every key, as the training code does.
"""

import torch


def visible(config, frame, frames):
    """Frames that `frame` sees among `frames` frames, in time order."""
    return [other for other in range(frames) if _sees(config, frame, other)]


def mask(config, frames):
    """[F, F] bool: row sees column."""
    return torch.tensor([[_sees(config, i, j) for j in range(frames)] for i in range(frames)])


def _sees(config, i, j):
    size, warmup = config.window_size, config.warmup_frames
    mode = config.attention_mode.value
    if mode == "bidirectional":
        return i // size == j // size
    if mode == "causal":
        return 0 <= i - j < size
    if mode == "causal_warmup":
        if i < warmup:
            return j < warmup
        return j < warmup or 0 <= i - j < size - warmup
    overlap = size // 2
    hop = size - overlap
    if i < size:
        return j < size
    first = i - (i - size) % hop
    return first - overlap <= j < first + hop


def direct_attention(x, projections, table, heads, config):
    """Masked attention of a whole sequence, nothing cached.

    x [F, HW, C]; projections (to_q, to_k, to_v) of C channels; table [P, C]; returns [F, HW, C].
    """
    frames, tokens, channels = x.shape
    to_q, to_k, to_v = projections

    def split(projected):
        return projected.view(*projected.shape[:-1], heads, channels // heads)

    out = []
    for frame in range(frames):
        seen = visible(config, frame, frames)
        query = split(to_q(x[frame] + table[seen.index(frame)]))  # [HW, heads, d]
        placed = x[seen] + table[: len(seen), None]  # [V, HW, C]
        scores = torch.einsum("xhd,vxhd->xhv", query, split(to_k(placed)))
        weights = (scores * (channels // heads) ** -0.5).softmax(-1)
        out.append(torch.einsum("xhv,vxhd->xhd", weights, split(to_v(placed))))
    return torch.stack(out).view(x.shape)


def translate(latents, levels, noise, whole_sequence):
    """Translate a clip without a stream: all frames together, one step after the other.

    `whole_sequence(x, step)` predicts x0 of all frames. Formulas of latent consistency models.
    """

    def noised(x0, step):
        fresh = torch.stack([noise(f, step, x0.shape[1:]) for f in range(len(x0))])
        return levels.sqrt_alpha[step] * x0 + levels.sqrt_beta[step] * fresh

    x = noised(latents, 0)
    for step in range(len(levels)):
        x0 = levels.c_out[step] * whole_sequence(x, step) + levels.c_skip[step] * x
        if step + 1 < len(levels):
            x = noised(x0, step + 1)
    return x0
