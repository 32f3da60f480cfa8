"""Caches of a stream: allocated when it opens, reached by index, moved and restored as a whole."""

import pytest
import torch

from live2diff_core.live2diff.stream_caches import AttentionSize, StreamCaches
from live2diff_core.stream.call_plan import FeatureSizeError, OpenedShape, Pass

SIZES = [AttentionSize("down.0.0.0", 0, 2, 8), AttentionSize("mid.0.0", 1, 2, 12)]
STEPS = {"positive": 3, "negative": 0}
CPU = torch.device("cpu")


def shape(dtype=torch.float32, positives=((4, 6), (3, 2))):
    named = [(f"positive.{index}", size) for index, size in enumerate(positives)]
    return OpenedShape((*named, ("negative.0", (4, 6))), CPU, dtype)


def opened(**more):
    caches = StreamCaches(SIZES, STEPS, slots=5)
    caches.open(shape(**more))
    return caches


def tensors(caches):
    return caches.state_dict()


def test_allocated_when_the_stream_opens():
    """By the size of each conditioning's area; none for prompts that do not run."""
    sizes = {name: tuple(tensor.shape) for name, tensor in tensors(opened()).items()}
    keys = {name: size for name, size in sizes.items() if name.endswith("keys_by_head")}
    assert keys == {
        "positive.0.pass0/down.0.0.0/keys_by_head": (3, 2, 24, 5, 4),
        "positive.0.pass0/mid.0.0/keys_by_head": (3, 2, 6, 5, 6),
        "positive.1.pass0/down.0.0.0/keys_by_head": (3, 2, 6, 5, 4),
        "positive.1.pass0/mid.0.0/keys_by_head": (3, 2, 2, 5, 6),
    }
    assert {name.replace("values", "keys") for name in sizes} == set(keys)


def test_opening_again_keeps_the_tensors():
    caches = opened()
    before = {name: tensor.data_ptr() for name, tensor in tensors(caches).items()}
    caches.open(shape())
    assert {name: tensor.data_ptr() for name, tensor in tensors(caches).items()} == before


def test_later_passes_are_allocated_at_their_first_use():
    caches = opened()
    before = caches.nbytes
    cache = caches.at(Pass(0, 2), 1, 6)
    assert cache.keys.shape == (3, 2, 6, 5, 6)
    assert [n for n in tensors(caches) if "pass2" in n] and caches.nbytes > before
    assert caches.at(Pass(0, 2), 1, 6) is cache


def written(caches):
    for place in (Pass(0, 0), Pass(1, 0), Pass(0, 1)):
        for index, size in enumerate(SIZES):
            tokens = caches.at(place, index, 24 if place.conditioning == 0 else 6).keys.shape[2]
            current = torch.randn(1, 2, tokens, 1, size.channels // 2)
            caches.at(place, index, tokens).update(
                current, -current, range(1, 2), torch.tensor([3]).view(1, 1, 1, 1, 1)
            )
    return caches


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_state_is_restored_when_the_stream_opens(dtype):
    saved = tensors(written(opened()))
    kept = {name: tensor.clone() for name, tensor in saved.items()}
    caches = StreamCaches(SIZES, STEPS, slots=5)
    caches.load_state_dict(saved)
    assert caches.nbytes == sum(tensor.nbytes for tensor in saved.values())
    caches.open(shape(dtype))
    found = tensors(caches)
    assert found.keys() == saved.keys()
    assert all(torch.equal(found[name], saved[name].to(dtype)) for name in saved)
    caches.at(Pass(0, 0), 0, 24).clear()
    assert all(torch.equal(saved[name], kept[name]) for name in saved), "the state is not written"


def test_a_state_of_version_0_1_0_is_restored():
    """Its tensors are [T, HW, heads, L, d], under other names."""
    new = tensors(written(opened()))
    old = {n.removesuffix("_by_head"): t.transpose(1, 2).contiguous() for n, t in new.items()}
    caches = StreamCaches(SIZES, STEPS, slots=5)
    caches.load_state_dict(old)
    caches.open(shape())
    found = tensors(caches)
    assert all(torch.equal(found[name], new[name]) and found[name].is_contiguous() for name in new)


def test_moved_away_and_back():
    caches = written(opened())
    before = {name: tensor.clone() for name, tensor in tensors(caches).items()}
    caches.to(CPU)
    assert caches.shape is None
    caches.open(shape())
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors(caches).items())
    assert tensors(caches).keys() == before.keys()


def test_features_that_another_node_shrinks():
    """At all steps they may be smaller; from one step to the next they may not."""
    caches = opened()
    small = caches.at(Pass(0, 0), 0, 9)
    assert small.keys.shape[2] == 9
    current = torch.randn(1, 2, 9, 1, 4)
    small.update(current, current, range(1), torch.tensor([0]).view(1, 1, 1, 1, 1))
    assert caches.at(Pass(0, 0), 0, 9) is small
    with pytest.raises(FeatureSizeError, match="changed from 9 to 24 pixels within a stream"):
        caches.at(Pass(0, 0), 0, 24)
    caches.clear()
    assert caches.at(Pass(0, 0), 0, 24).keys.shape[2] == 24
