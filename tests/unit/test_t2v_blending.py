"""Randomized blending along the diagonal front: the same as all chunks at once, at any length."""

import pytest
import torch

from live2diff_core.streamingt2v.blending import (
    Block,
    ChunkError,
    Chunks,
    DiagonalFront,
    Randomness,
)
from live2diff_core.streamingt2v.enhancer_schedule import Ladder

SHAPE = (4, 2, 3)


def noise(frame, step):
    generator = torch.Generator().manual_seed(1000 * frame + step)
    return torch.randn(SHAPE, generator=generator)


def random_of(chunks, ways=0):
    cut = lambda chunk, step: (7 * chunk + 3 * step) % (chunks.overlap + ways)  # noqa: E731
    return Randomness(noise, cut)


def predict(latents, step):
    """A network that sees all frames of its chunk."""
    mean = latents.mean(dim=1, keepdim=True)
    return torch.tanh(latents * 0.7 + 0.3 * mean + 0.1 * step)


def at_once(x, count, chunks, ladder, random, blended):
    """The film as a whole in every step, as the published code or the paper does it."""
    before = None
    for step in range(ladder.steps):
        last = step + 1 == ladder.steps
        added = torch.stack([noise(f, step) for f in range(x.shape[1])], dim=1)
        x0, moved = torch.zeros_like(x), torch.zeros_like(x)
        for chunk in range(count):
            frames = slice(chunk * chunks.stride, chunk * chunks.stride + chunks.frames)
            found = predict(x[:, frames], step)
            earlier = None if before is None else before[:, frames]
            own = ladder.step(
                step, x[:, frames], found, earlier, None if last else added[:, frames]
            )
            cut = random.cut(chunk, step) if chunk else 0
            kept = slice(frames.start + cut, frames.stop)
            x0[:, kept], moved[:, kept] = found[:, cut:], own[:, cut:]
        x = (
            moved
            if blended == "latents"
            else ladder.step(step, x, x0, before, None if last else added)
        )
        before = x0
    return x


def blocks(x, count, chunks):
    for chunk in range(count):
        last = chunk + 1 == count
        first = chunk * chunks.stride
        end = first + (chunks.frames if last else chunks.stride)
        yield Block(chunk, x[:, first:end], last=last)


def along_the_front(x, count, chunks, ladder, random, blended, save=lambda front: front):
    front, done = DiagonalFront(ladder.steps, chunks, random, blended), []
    for block in blocks(x, count, chunks):
        done += front.push(block, predict, ladder.step)
        front = save(front)
    while front.busy:
        done += front.push(None, predict, ladder.step)
        front = save(front)
    assert [block.chunk for block in done] == list(range(count))
    return torch.cat([block.latents for block in done], dim=1)


@pytest.mark.parametrize("blended", ["x0", "latents"])
@pytest.mark.parametrize("count", [1, 2, 3, 9])
@pytest.mark.parametrize("frames, overlap, steps", [(6, 2, 4), (4, 2, 1), (5, 1, 7)])
def test_the_front_gives_what_all_chunks_at_once_give(frames, overlap, steps, count, blended):
    chunks, ladder = Chunks(frames, overlap), Ladder.of(steps)
    random = random_of(chunks, blended == "latents")
    length = (count - 1) * chunks.stride + frames
    x = torch.stack([noise(f, 99) for f in range(length)], dim=1)
    found = along_the_front(x, count, chunks, ladder, random, blended)
    assert torch.equal(found, at_once(x, count, chunks, ladder, random, blended))


@pytest.mark.parametrize("blended", ["x0", "latents"])
def test_the_front_goes_on_from_its_state(blended):
    chunks, ladder = Chunks(6, 2), Ladder.of(4)
    random = random_of(chunks)
    x = torch.stack([noise(f, 99) for f in range(8 * 4 + 6)], dim=1)

    def saved(front):
        again = DiagonalFront(ladder.steps, chunks, random, blended)
        state = {name: tensor.clone() for name, tensor in front.state_dict().items()}
        again.check_state(state, SHAPE)
        again.load_state_dict(state, None)
        return again

    whole = along_the_front(x, 9, chunks, ladder, random, blended)
    assert torch.equal(along_the_front(x, 9, chunks, ladder, random, blended, saved), whole)


def test_a_failed_push_changes_nothing():
    chunks, ladder = Chunks(6, 2), Ladder.of(3)
    x = torch.stack([noise(f, 99) for f in range(4 * 4 + 6)], dim=1)
    front, calls = DiagonalFront(3, chunks, random_of(chunks)), []

    def failing(latents, step):
        calls.append(step)
        if len(calls) % 2:
            raise RuntimeError
        return predict(latents, step)

    done, whole = [], along_the_front(x, 5, chunks, ladder, random_of(chunks), "x0")
    for block in blocks(x, 5, chunks):
        before = front.state_dict()
        try:
            done += front.push(block, failing, ladder.step)
        except RuntimeError:
            after = front.state_dict()
            assert before.keys() == after.keys()
            assert all(torch.equal(before[name], after[name]) for name in before)
            done += front.push(block, predict, ladder.step)
    while front.busy:
        done += front.push(None, predict, ladder.step)
    assert torch.equal(torch.cat([block.latents for block in done], dim=1), whole)


def test_the_front_holds_as_much_for_any_length():
    chunks, ladder = Chunks(6, 2), Ladder.of(5)
    front, sizes = DiagonalFront(5, chunks, random_of(chunks)), []
    for chunk in range(40):
        x = torch.stack([noise(f, 99) for f in range(4)], dim=1)
        front.push(Block(chunk, x), predict, ladder.step)
        sizes.append(sum(tensor.numel() for tensor in front.state_dict().values()))
    assert set(sizes[6:]) == {sizes[6]}


@pytest.mark.parametrize("frames, overlap", [(4, 3), (4, 0), (1, 1)])
def test_chunks_overlap_by_half_at_most(frames, overlap):
    with pytest.raises(ChunkError, match=f"Chunks of {frames}"):
        Chunks(frames, overlap)


def test_damaged_states_of_the_front_are_refused():
    chunks, ladder = Chunks(6, 2), Ladder.of(2)
    front = DiagonalFront(2, chunks, random_of(chunks))
    x = torch.stack([noise(f, 99) for f in range(12)], dim=1)
    for chunk in range(3):
        front.push(Block(chunk, x[:, 4 * chunk : 4 * chunk + 4]), predict, ladder.step)
    state = front.state_dict()
    front.check_state(state, SHAPE)
    for name, value in (
        ("0/latents", torch.zeros(4, 3, 2, 3)),
        ("1/tail", torch.zeros(1, 4, 3, 2, 3)),
        ("0/chunk", torch.tensor([1.0, 0.0])),
        ("2/latents", state["0/latents"]),
        ("0/x0", torch.zeros(1)),
    ):
        with pytest.raises(ValueError):
            front.check_state({**state, name: value}, SHAPE)
    with pytest.raises(ValueError):
        front.check_state({n: t for n, t in state.items() if n != "0/latents"}, SHAPE)
