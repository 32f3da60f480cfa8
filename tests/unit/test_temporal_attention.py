"""Cached attention, streamed, against masked attention over the whole sequence."""

import figure1
import pytest
import torch
import toy_stream as toy
from einops import rearrange
from hypothesis import given, settings
from hypothesis import strategies as st

from live2diff_core.live2diff.attention import PositionTables, WindowView, windowed_attention
from live2diff_core.live2diff.kv_cache import KVCache
from live2diff_core.live2diff.window import AttentionMode, AttentionWindow, WindowRow
from live2diff_core.stream.call_plan import PackedIntegers

HEADS, DIM, TOKENS, POSITIONS = 2, 3, 4, 24
WIDTH = HEADS * DIM


def view_of(steps, rows):
    """The tensors of some windows, as a model call gets them."""
    row = rows[0]
    shape = (len(rows), len(row.query_slots), len(row.key_positions[0]))
    full = all(p >= 0 for row in rows for seen in row.key_positions for p in seen)
    packed = PackedIntegers(torch.tensor(WindowView.integers(rows)))
    return WindowView.from_integers(steps, shape, full, packed)


class Streamed:
    """One attention with its cache for T steps, fed group by group."""

    def __init__(self, config, steps, dtype=torch.float64, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.weights = torch.randn(3, WIDTH, WIDTH, generator=generator, dtype=dtype)
        self.table = torch.randn(POSITIONS, WIDTH, generator=generator, dtype=dtype)
        self.tables = PositionTables.join([[self.table @ w.T for w in self.weights]], HEADS)
        self.window = config
        shape = (steps, HEADS, TOKENS, config.window_size, DIM)
        self.cache = KVCache.allocate(shape, dtype, self.table.device)

    def __call__(self, x, groups, steps):
        """From x [R, Q, HW, C], group r at step r of `steps`, to the same shape."""
        rows = [self.window.row(group) for group in groups]
        view = view_of(steps, rows)
        query, key, value = (
            rearrange(x @ w.T, "r q hw (heads d) -> r heads hw q d", heads=HEADS)
            for w in self.weights
        )
        keys, values = self.cache.update(key, value, steps, view.slots)
        (positions,) = self.tables.place(view)
        out = windowed_attention(query, keys, values, positions, view.hidden)
        return rearrange(out, "r heads hw q d -> r q hw (heads d)")

    def direct(self, x, config):
        """x [F, HW, C], the whole sequence."""
        projections = [lambda t, w=w: t @ w.T for w in self.weights]
        return figure1.direct_attention(x, projections, self.table, HEADS, config)


def sequences(steps, frames, dtype=torch.float64, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(steps, frames, TOKENS, WIDTH, generator=generator, dtype=dtype)


def groups_of(window, frames):
    frame = 0
    while frame < frames:
        group = range(frame, min(window.group(frame).stop, frames))
        yield group
        frame = group.stop


def stream(attention, x):
    """Feed x [T, F, HW, C] as a pipeline would: single frames together, groups step by step."""
    steps, frames = x.shape[:2]
    out = torch.full_like(x, float("nan"))
    groups = list(groups_of(attention.window, frames))
    grouped = [group for group in groups if len(attention.window.group(group[0])) > 1]
    for group in grouped:
        for step in range(steps):
            part = x[step, group.start : group.stop]
            found = attention(part[None], [group], range(step, step + 1))
            out[step, group.start : group.stop] = found[0]
    single = [group[0] for group in groups if group not in grouped]
    for call in range(len(single) + steps - 1 if single else 0):
        rows = [(single[call - s], s) for s in range(steps) if 0 <= call - s < len(single)]
        part = torch.stack([x[step, frame] for frame, step in rows]).unsqueeze(1)
        at = range(rows[0][1], rows[-1][1] + 1)
        found = attention(part, [range(frame, frame + 1) for frame, _ in rows], at)
        for (frame, step), row in zip(rows, found, strict=True):
            out[step, frame] = row[0]
    return out


@pytest.mark.parametrize("mode", AttentionMode)
@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("size, warmup, frames", [(16, 8, 40), (5, 2, 19), (2, 1, 7), (8, 3, 2)])
def test_streamed_is_full_masked_attention(mode, steps, size, warmup, frames):
    config = AttentionWindow(size, warmup, mode)
    attention = Streamed(config, steps)
    x = sequences(steps, frames)
    streamed = stream(attention, x)
    for step in range(steps):
        torch.testing.assert_close(
            streamed[step], attention.direct(x[step], config), rtol=1e-5, atol=1e-5
        )


@given(st.data())
@settings(deadline=None, max_examples=40)
def test_streamed_is_full_masked_attention_at_any_size(data):
    mode = data.draw(st.sampled_from(AttentionMode))
    size = data.draw(st.integers(2, 12))
    config = AttentionWindow(size, data.draw(st.integers(1, size - 1)), mode)
    steps, frames = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 30))
    attention = Streamed(config, steps)
    x = sequences(steps, frames)
    streamed = stream(attention, x)
    for step in range(steps):
        torch.testing.assert_close(
            streamed[step], attention.direct(x[step], config), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("mode", AttentionMode)
def test_nothing_comes_out_of_hidden_slots(mode, garbage):
    """Not even NaN: what an earlier use of the memory left there, say."""
    attention, clean = (Streamed(AttentionWindow(5, 2, mode), 3) for _ in range(2))
    attention.cache.keys.fill_(garbage)
    attention.cache.values.fill_(garbage)
    x = sequences(3, 12)
    assert torch.equal(stream(attention, x), stream(clean, x))


def test_a_full_window_hides_nothing():
    """Then there is nothing to mask, and the cached values are not copied for it."""
    window = AttentionWindow(5, 2)

    def hidden(*frames):
        rows = [window.row(window.group(frame)) for frame in frames]
        return view_of(range(len(rows)), rows).hidden

    assert hidden(0).tolist() == [[[False, False, True, True, True]] * 2]
    assert hidden(4) is None and hidden(9, 8) is None
    assert hidden(4, 3).tolist() == [[[False] * 5], [[False] * 4 + [True]]]


def test_float32_is_close_enough_for_the_traces():
    config = AttentionWindow()
    x = sequences(1, 30, torch.float32)
    attention = Streamed(config, 1, torch.float32)
    direct = attention.direct(x[0], config)
    assert (stream(attention, x)[0] - direct).abs().max() < 1e-5 * direct.abs().max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_its_type_and_its_sense(dtype):
    config = AttentionWindow()
    x = sequences(1, 24, torch.float32)
    exact = stream(Streamed(config, 1, torch.float32), x)
    half = Streamed(config, 1, torch.float32)
    half.weights, half.cache = half.weights.to(dtype), Streamed(config, 1, dtype).cache
    tables = [(half.table @ w.float().T).to(dtype) for w in half.weights]
    half.tables = PositionTables.join([tables], HEADS)
    found = stream(half, x.to(dtype))
    assert found.dtype is half.cache.keys.dtype is dtype
    assert (found.float() - exact).abs().mean() < 0.05 * exact.abs().mean()


def test_float16_scores_do_not_overflow():
    """Products of large queries and keys pass 65504 unless they are scaled first."""
    big = torch.full((1, 1, 1, 1, 64), 50.0, dtype=torch.float16)  # scores of 160000, or 20000
    zero = torch.zeros(1, 64, dtype=torch.float16)
    row = AttentionWindow(1, 1, AttentionMode.CAUSAL).row(range(1))
    (positions,) = PositionTables.join([(zero, zero, zero)], 1).place(view_of(range(1), [row]))
    out = windowed_attention(big, big, big, positions, None)
    assert torch.equal(out, big)


def test_hidden_slots_have_no_influence():
    """What lies in slots that are not visible is weighted with exactly zero."""
    config = AttentionWindow()
    x = sequences(2, 11)
    clean, littered = Streamed(config, 2), Streamed(config, 2)
    littered.cache.keys[:, :, :, 11:] = 1e3
    littered.cache.values[:, :, :, 11:] = -1e6
    assert torch.equal(stream(clean, x), stream(littered, x))


def test_unwritten_slots_are_zero():
    """Zero times a weight of zero is zero; NaN would not be."""
    attention = Streamed(AttentionWindow(), 2)
    assert not attention.cache.keys.any() and not attention.cache.values.any()
    stream(attention, sequences(2, 10))
    assert not attention.cache.keys[:, :, :, 10:].any()


def test_steps_never_meet():
    """Changing what step 1 saw changes nothing at step 0."""
    x = sequences(2, 20)
    other = x.clone()
    other[1] = -other[1]
    first, second = (stream(Streamed(AttentionWindow(), 2), each) for each in (x, other))
    assert torch.equal(first[0], second[0])
    assert not torch.allclose(first[1], second[1])


def test_cache_holds_no_positions():
    """A frame's keys are the same wherever it stands in the window."""
    attention = Streamed(AttentionWindow(4, 2), 1)
    x = sequences(1, 6)
    stream(attention, x)
    expected = (x[0, 5] @ attention.weights[1].T).view(TOKENS, HEADS, DIM)
    slot = attention.window.slot(5)
    torch.testing.assert_close(attention.cache.keys[0, :, :, slot].transpose(0, 1), expected)
    assert attention.cache.nbytes == 2 * 1 * TOKENS * HEADS * 4 * DIM * 8


def chunk_of(config, frames):
    """All frames of a short stream as one group, each with the window of its own."""
    rows = [config.row(range(frame, frame + 1)) for frame in range(frames)]
    return WindowRow(
        query_slots=tuple(row.query_slots[0] for row in rows),
        query_positions=tuple(row.query_positions[0] for row in rows),
        key_positions=tuple(row.key_positions[0] for row in rows),
    )


def attend_at_once(attention, x, row):
    """A chunk x [F, HW, C] in one call, from an empty cache."""
    view = view_of(range(1), [row])
    query, key, value = (
        rearrange(x @ w.T, "q hw (heads d) -> 1 heads hw q d", heads=HEADS)
        for w in attention.weights
    )
    keys, values = attention.cache.update(key, value, range(1), view.slots)
    (positions,) = attention.tables.place(view)
    out = windowed_attention(query, keys, values, positions, view.hidden)
    return rearrange(out, "1 heads hw q d -> q hw (heads d)")


def test_a_chunk_in_which_each_frame_has_its_own_window():
    """Visibility and positions are per query: a causal chunk equals its frames one by one."""
    config = AttentionWindow(5, 1, AttentionMode.CAUSAL)
    x = sequences(1, 5)
    found = attend_at_once(Streamed(config, 1), x[0], chunk_of(config, 5))
    close = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(found, Streamed(config, 1).direct(x[0], config), **close)
    torch.testing.assert_close(found, stream(Streamed(config, 1), x)[0], **close)


def test_attention_and_cache_are_differentiable():
    """Training runs a whole window as one chunk through the same code."""
    config = AttentionWindow(5, 1, AttentionMode.CAUSAL)
    row, inputs = chunk_of(config, 5), sequences(1, 5)[0]

    def gradients(attend):
        attention = Streamed(config, 1)
        leaves = [inputs.clone(), attention.weights, attention.table]
        x, attention.weights, attention.table = (leaf.requires_grad_() for leaf in leaves)
        tables = [attention.table @ w.T for w in attention.weights]
        attention.tables = PositionTables.join([tables], HEADS)
        attend(attention, x).sin().sum().backward()
        assert not attention.cache.keys.any() and not attention.cache.written, "nothing is kept"
        return [x.grad, attention.weights.grad, attention.table.grad]

    found = gradients(lambda attention, x: attend_at_once(attention, x, row))
    expected = gradients(lambda attention, x: attention.direct(x, config))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_position_tables_follow_the_weights_only_in_training():
    memory, made = toy.motion_memory(AttentionWindow(4, 2), {"positive": 1}), []
    model = toy.ToyModel()
    tables = model.tables
    model.tables = lambda: made.append(1) or tables()
    with torch.inference_mode():
        model.open_memory(memory)
        model.open_memory(memory)
    assert len(made) == 1
    model.open_memory(memory)
    model.open_memory(memory)
    assert len(made) == 3
