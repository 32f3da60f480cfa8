"""The feature bank's functions, against loops over tokens written from StreamV2V's description."""

import pytest
import torch
from bank_by_hand import fused, merged
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from live2diff_core.feature_bank.bank import ALL_LEVELS, BankConfig, BankedLayer, BankKind
from live2diff_core.feature_bank.fusion import fuse
from live2diff_core.feature_bank.layer_banks import LayerBanks
from live2diff_core.feature_bank.update import plan_update
from live2diff_core.stream.noise import TokenPermutation

CHANNELS = 6
MERGE, QUEUE = BankConfig(), BankConfig(kind="queue", queue_frames=3)
EMPTY = torch.zeros(0, CHANNELS)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


class LargestTensor(TorchDispatchMode):
    """Notes the most elements of any tensor made."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for made in tree_leaves(result):
            if isinstance(made, torch.Tensor):
                self.elements = max(self.elements, made.numel())
        return result


def never(count):
    raise AssertionError("asked for a permutation without need")


# Dynamic merging


@given(st.integers(1, 12), st.integers(0, 99))
@settings(deadline=None, max_examples=25)
def test_merging_averages_each_source_into_its_nearest_target(tokens, seed):
    bank, frame = random(tokens, CHANNELS, seed=seed), random(tokens, CHANNELS, seed=seed + 1)
    permutation = TokenPermutation(seed)(8, 1, "layer", 2 * tokens)
    update = plan_update(MERGE, bank, frame, lambda count: permutation[:count])
    keys = torch.cat([bank, frame])
    close(update(bank, frame), merged(keys, keys, permutation))
    values = random(tokens, 3, seed=seed + 2), random(tokens, 3, seed=seed + 3)
    close(update(*values), merged(keys, torch.cat(values), permutation))


def test_merging_asks_for_a_permutation_of_both_frames_tokens():
    asked = []

    def permutation(count):
        asked.append(count)
        return torch.arange(count)

    plan_update(MERGE, random(5, CHANNELS), random(5, CHANNELS, seed=1), permutation)
    assert asked == [10]


def test_merging_two_equal_frames_keeps_their_tokens():
    frame = random(8, CHANNELS)
    # The bank is all source, the frame all target.
    close(plan_update(MERGE, frame, frame, torch.arange)(frame, frame), frame)


def test_merging_keeps_the_type_and_averages_exactly():
    """All thousand go into one: a sum in float16 would be infinite."""
    bank = torch.full((1000, 1), 2048.0, dtype=torch.float16)
    frame = torch.full((1000, 1), 2048.0, dtype=torch.float16)
    found = plan_update(MERGE, bank, frame, torch.arange)(bank, frame)
    assert found.dtype is torch.float16
    assert (found == 2048).all()


class Operations(TorchDispatchMode):
    """Lists the names of all operations."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_merging_sums_in_an_order():
    """Scattered sums are in no order on CUDA; so are running sums of floats."""
    bank, frame = random(64, CHANNELS), random(64, CHANNELS, seed=1)
    with Operations() as operations:
        plan_update(MERGE, bank, frame, torch.arange)(bank, frame)
    unordered = ("scatter", "index_add", "index_reduce", "cumsum", "put")
    assert "cat" in operations.names
    assert not [name for name in operations.names if any(part in name for part in unordered)]


def test_merging_sums_the_same_on_any_number_of_threads():
    bank, frame = random(512, 40), random(512, 40, seed=1)
    update = plan_update(MERGE, bank, frame, torch.arange)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 4):
            torch.set_num_threads(count)
            found.append(update(bank, frame))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(found[0], other) for other in found)


# Queue, and the first frame


@pytest.mark.parametrize("config", [MERGE, QUEUE])
def test_the_first_frame_is_kept_as_it_is(config):
    frame = random(5, CHANNELS)
    kept = plan_update(config, EMPTY, frame, never)(EMPTY, frame)
    assert torch.equal(kept, frame)
    frame.zero_()
    assert kept.abs().min() > 0, "a part of the batch must not be held, nor follow it"


def test_the_queue_keeps_the_last_frames_in_order():
    clip = [random(4, CHANNELS, seed=seed) for seed in range(7)]
    bank = EMPTY
    for index, frame in enumerate(clip):
        bank = plan_update(QUEUE, bank, frame, never)(bank, frame)
        assert torch.equal(bank, torch.cat(clip[max(0, index - 2) : index + 1]))


@pytest.mark.parametrize("config", [MERGE, QUEUE])
def test_no_more_is_held_than_is_counted(config):
    """A part of a larger tensor would keep the whole of it."""
    bank = EMPTY
    for index in range(6):
        frame = random(2, 4, CHANNELS, seed=index)[1]
        bank = plan_update(config, bank, frame, torch.arange)(bank, frame)
        held = bank.untyped_storage().nbytes()
        assert held == bank.nbytes


# Fusion


def fuse_row(features, bank, strength, threshold):
    """Fuse [HW, C] with [M, C]."""
    return fuse(features[None], bank[None], strength, threshold)[0]


@given(
    st.integers(1, 10),
    st.integers(1, 4),
    st.floats(0, 1),
    st.sampled_from([-1.0, 0.0, 0.3, 0.6, 0.9, 0.98]),
)
@settings(deadline=None, max_examples=30)
def test_fusion_blends_with_the_nearest_token(tokens, frames, strength, threshold):
    features = random(tokens, CHANNELS)
    bank = random(tokens * frames, CHANNELS, seed=1)
    bank[0] = 2 * features[-1] + 0.01  # one that is near
    found = fuse_row(features, bank, strength, threshold)
    close(found, fused(features, bank, strength, threshold))


def test_the_threshold_belongs_to_what_is_near():
    own, bank = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 4.0], [3.0, 4.0]])  # cosines 0, 0.6
    assert torch.equal(fuse_row(own, bank, 1.0, 0.61), own)
    assert torch.equal(fuse_row(own, bank, 1.0, 0.59), bank[1:])
    same = torch.tensor([[3.0, 0.0]])
    assert torch.equal(fuse_row(own, same, 1.0, 1.0), same)


def test_strength_0_changes_nothing_and_1_takes_the_banks_token():
    features, bank = random(6, CHANNELS), random(6, CHANNELS, seed=1)
    assert torch.equal(fuse_row(features, bank, 0.0, -1.0), features)
    taken = fuse_row(features, bank, 1.0, -1.0)
    assert all(any(torch.equal(row, token) for token in bank) for row in taken)


@pytest.mark.parametrize("frames", [1, 2, 3, 7])
@pytest.mark.parametrize("tokens", [1, 2, 5, 64])
def test_a_search_in_parts_is_the_search_at_once(tokens, frames):
    features = random(tokens, CHANNELS)
    bank = random(tokens * frames, CHANNELS, seed=1)
    whole = torch.cosine_similarity(features[:, None], bank[None], dim=-1).max(-1)
    expected = torch.where(
        (whole.values >= 0.5)[:, None], features.lerp(bank[whole.indices], 0.8), features
    )
    close(fuse_row(features, bank, 0.8, 0.5), expected)


@pytest.mark.parametrize("tokens", [3, 40, 1200])
def test_rows_are_fused_each_with_its_own_bank(tokens):
    """In one search while it is small, else one after another."""
    features, banks = random(4, tokens, CHANNELS), random(4, 2 * tokens, CHANNELS, seed=1)
    expected = [fuse_row(*row, 0.8, 0.5) for row in zip(features, banks, strict=True)]
    close(fuse(features, banks, 0.8, 0.5), torch.stack(expected))


# Sizes


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_fusion_makes_no_tensor_larger_than_token_by_token(frames):
    tokens = 96
    features, bank = random(tokens, 4), random(tokens * frames, 4, seed=1)
    with LargestTensor() as largest:
        fuse_row(features, bank, 0.8, 0.9)
    assert 0 < largest.elements <= tokens**2


def test_merging_makes_no_tensor_larger_than_token_by_token():
    tokens = 96
    bank, frame = random(tokens, 4), random(tokens, 4, seed=1)
    with LargestTensor() as largest:
        plan_update(MERGE, bank, frame, torch.arange)(bank, frame)
    assert largest.elements == tokens**2


def test_searching_for_rows_together_stays_small():
    """Four rows of 1,500 tokens, of which one is a matrix of nine megabytes."""
    features, bank = random(4, 1500, 2), random(4, 1500, 2, seed=1)
    with LargestTensor() as largest:
        fuse(features, bank, 0.8, 0.9)
    assert largest.elements == 1500**2
    with LargestTensor() as largest:
        fuse(features[:, :96], bank[:, :96], 0.8, 0.9)
    assert largest.elements == 4 * 96**2


def layer_banks(fuses=False, frames=3):
    """The banks of two steps, for frames of 5 tokens."""
    layer = BankedLayer("middle.0.0", 3, 4, fuses)
    return LayerBanks(layer, (2, 5, frames), torch.float32, torch.device("cpu"))


@pytest.mark.parametrize("fuses", [False, True])
def test_banks_count_what_is_filled_and_what_they_hold(fuses):
    banks, parts = layer_banks(fuses), ["keys", "values", *["features"] * fuses]
    held = len(parts) * 2 * 15 * 4 * 4
    assert (banks.filled, banks.nbytes, banks.stored(), banks.empty) == ([0, 0], held, {}, True)
    new = {part: random(10, 4, seed=seed) for seed, part in enumerate(parts)}
    banks.pending[1] = new
    assert banks.nbytes == held + len(parts) * 10 * 4 * 4
    assert (banks.stored(), banks.empty) == ({}, False)
    banks.commit()
    assert (banks.filled, banks.nbytes, banks.empty) == ([0, 2], held, False)
    (stored,) = banks.stored().values()
    assert [*stored] == parts
    for part in parts:
        assert torch.equal(stored[part], new[part])
        assert torch.equal(banks.seen(part, range(1, 2)), new[part][None])
        assert banks.seen(part, range(1)).shape == (1, 0, 4)
    banks.clear()
    assert (banks.filled, banks.nbytes, banks.stored(), banks.empty) == ([0, 0], held, {}, True)


# Settings


def test_the_defaults_are_the_released_codes():
    config = BankConfig()
    assert (config.kind, config.interval) == (BankKind.MERGE, 4)
    assert (config.fusion_strength, config.similarity_threshold) == (0.8, 0.98)
    assert (config.fuse, config.extend) == (("middle", "up 2"), ALL_LEVELS)


def test_a_merged_bank_is_one_frame_whatever_the_queue():
    assert BankConfig(queue_frames=5).frames == 1
    assert BankConfig(kind="queue", queue_frames=5).frames == 5


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"queue_frames": 0}, "queue_frames is 0; it must be at least 1"),
        ({"interval": 0}, "interval is 0; it must be at least 1"),
        ({"fusion_strength": -0.1}, "fusion_strength is -0.1; it must be 0 to 1"),
        ({"fusion_strength": 1.5}, "fusion_strength is 1.5; it must be 0 to 1"),
        ({"fusion_strength": float("nan")}, "fusion_strength is nan"),
        ({"similarity_threshold": 1.1}, "similarity_threshold is 1.1; it must be -1 to 1"),
        ({"similarity_threshold": float("nan")}, "similarity_threshold is nan"),
        ({"fuse": ("up 1",)}, "no level 'up 1' with self-attention.* there are down 1, .*up 4"),
        ({"extend": ("down 1", "left")}, "no level 'left'"),
        ({"kind": "stack"}, "stack"),
    ],
    ids=str,
)
def test_settings_that_no_bank_can_be_made_of(settings, message):
    with pytest.raises(ValueError, match=message):
        BankConfig(**settings)


# Permutations


def test_a_permutation_belongs_to_its_place():
    permutation = TokenPermutation(7)
    places = [(4, 0, "a"), (8, 0, "a"), (4, 1, "a"), (4, 0, "b")]
    all_found = [permutation(*place, 64) for place in places]
    for index, found in enumerate(all_found):
        assert torch.equal(found.sort().values, torch.arange(64))
        assert torch.equal(found, TokenPermutation(7)(*places[index], 64))
        assert not any(torch.equal(found, other) for other in all_found[:index])
    assert not torch.equal(TokenPermutation(8)(*places[0], 64), all_found[0])


def test_the_name_of_a_config_is_that_of_saved_streams():
    assert str(BankConfig(fuse=("middle",), extend=("up 3", "up 4"))) == (
        "BankConfig(kind=<BankKind.MERGE: 'merge'>, queue_frames=2, interval=4, "
        "fusion_strength=0.8, similarity_threshold=0.98, fuse=('middle',), "
        "extend=('up 3', 'up 4'))"
    )
