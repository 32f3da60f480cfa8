"""All KV-caches of a stream: by conditioning, pass and attention."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..stream.call_plan import FeatureSizeError, OpenedShape, Pass
from ..stream.memory import tokens_at
from ..stream.state import floats, part, require
from .kv_cache import KVCache

_PARTS = ("keys", "values")
# What follows the parts' names in states since 0.2.
_BY_HEAD = "_by_head"
_KINDS = {part + end for part in _PARTS for end in ("", _BY_HEAD)}


@dataclass(frozen=True)
class AttentionSize:
    """A temporal attention and the size of its features.

    Attributes:
        name: in saved streams, such as `down.0.1.0`: block, level, module, attention.
        level: number of downsamplers before it.
        heads: number of heads.
        channels: C, of all heads together.
    """

    name: str
    level: int
    heads: int
    channels: int


class StreamCaches:
    """The KV-caches, allocated when the stream opens and then reached by index.

    Args:
        attentions: the temporal attentions in the UNet's order.
        steps: T of each kind of conditioning (`positive`, `negative`), by kind.
        slots: L.
    """

    def __init__(
        self, attentions: Sequence[AttentionSize], steps: Mapping[str, int], slots: int
    ) -> None:
        """Start without caches."""
        self._attentions, self._steps, self._slots = tuple(attentions), dict(steps), slots
        self._shape: OpenedShape | None = None
        # Passes after a conditioning's first are those of guidance nodes.
        self._passes: list[list[list[KVCache]]] = []
        # Caches of a stream that is not open, by the names of their passes and attentions; whether
        # they are those of a loaded state, which must not change when they are written.
        self._closed: dict[str, dict[str, KVCache]] = {}
        self._borrowed = False

    def open(self, shape: OpenedShape) -> None:
        """Allocate the caches for what runs; what a stream has cached already is kept.

        Raises:
            StateError: a state was loaded that does not go with what runs.
        """
        if shape == self._shape:
            return
        if self._borrowed:
            self._check_loaded(shape)
        self._closed, self._shape = self._named(), shape
        self._passes = [[] for _ in shape.conditionings]
        for index in range(len(shape.conditionings)):
            while self._steps[shape.kind(index)] and self._has_more(index):
                self._add_pass(index)
        self._closed, self._borrowed = {}, False

    @property
    def shape(self) -> OpenedShape | None:
        """What the caches were allocated for; None while the stream is not open."""
        return self._shape

    def at(self, place: Pass, attention: int, tokens: int) -> KVCache:
        """Return the cache of one attention; a new pass of a guidance node gets caches.

        Args:
            place: the pass.
            attention: its index among the attentions.
            tokens: HW of the features.

        Raises:
            FeatureSizeError: `tokens` changed within the stream.
        """
        passes = self._passes[place.conditioning]
        while len(passes) <= place.number:
            self._add_pass(place.conditioning)
        cache = passes[place.number][attention]
        if cache.keys.shape[2] != tokens:
            cache = self._resized(attention, cache, tokens)
            passes[place.number][attention] = cache
        return cache

    def clear(self) -> None:
        """Forget all frames; the caches stay allocated."""
        self._closed, self._borrowed = {}, False
        for cache in self._all():
            cache.clear()

    def to(self, device: torch.device) -> None:
        """Close the stream and move all caches to `device`."""
        self._closed = {
            name: {layer: cache.to(device, cache.keys.dtype) for layer, cache in caches.items()}
            for name, caches in self._named().items()
        }
        self._passes, self._shape = [], None

    def state_dict(self) -> dict[str, Tensor]:
        """Return all keys and values, as `pass/attention/keys_by_head`; not copied."""
        return {
            f"{name}/{layer}/{part}{_BY_HEAD}": getattr(cache, part)
            for name, caches in self._named().items()
            for layer, cache in caches.items()
            for part in _PARTS
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned; `open` moves it to the model's device.

        Version 0.1.0 saved `keys` and `values`, [T, HW, heads, L, d].

        Raises:
            StateError: it is damaged, or that of another model; nothing has changed then.
        """
        loaded = {name: self._loaded(part(state, name)) for name in _passes_in(state)}
        for name, caches in loaded.items():
            self._check_pass(name, caches)
        self._passes, self._shape = [], None
        self._closed, self._borrowed = loaded, True

    @property
    def nbytes(self) -> int:
        """Bytes that all keys and values hold now."""
        return sum(cache.nbytes for cache in self._all())

    def _loaded(self, state: Mapping[str, Tensor]) -> dict[str, KVCache]:
        """Read the caches of one pass by the names of their attentions."""
        caches = {}
        for key in state:
            layer, _, kind = key.rpartition("/")
            require(kind in _KINDS, f"there is an unknown '{key}'")
            by_head = kind.endswith(_BY_HEAD)
            names = [f"{layer}/{part}{_BY_HEAD if by_head else ''}" for part in _PARTS]
            keys, values = (floats(state, name, *[None] * 5) for name in names)
            if not by_head:
                keys, values = keys.transpose(1, 2), values.transpose(1, 2)
            require(keys.shape == values.shape, f"keys and values of {layer} have other sizes")
            caches[layer] = KVCache(keys, values, written=True)
        return caches

    def _check_pass(self, name: str, caches: Mapping[str, KVCache]) -> None:
        """Compare the caches of a pass with those that would be allocated for it."""
        steps = self._steps.get(name.split(".")[0], 0)
        require(bool(steps), f"there are caches of '{name}', which does not run")
        wanted = [size.name for size in self._attentions]
        missing, other = set(wanted) - caches.keys(), caches.keys() - set(wanted)
        require(not missing, f"caches of {name} are missing: {', '.join(sorted(missing))}")
        require(not other, f"{name} has caches of unknown attentions: {', '.join(sorted(other))}")
        tokens: dict[int, int] = {}
        for size in self._attentions:
            found = tuple(caches[size.name].keys.shape)
            at_level = tokens.setdefault(size.level, found[2])
            expected = (steps, size.heads, at_level, self._slots, size.channels // size.heads)
            right = found == expected and at_level > 0
            require(right, f"{name}/{size.name} is {list(found)}, not {list(expected)}")

    def _check_loaded(self, shape: OpenedShape) -> None:
        """Compare the caches of a loaded state with what runs; before a first call it has none."""
        if not self._closed:
            return
        for index, (name, (height, width)) in enumerate(shape.conditionings):
            if not self._steps[shape.kind(index)]:
                continue
            caches = self._closed.get(shape.pass_name(index, 0))
            require(caches is not None, f"the caches of {name} are missing")
            assert caches is not None
            for attention in self._attentions:
                found = caches[attention.name].keys.shape[2]
                # Nodes may change the sizes of levels, which only a call shows.
                require(
                    found <= height * width,
                    f"{name}/{attention.name} has features of {found} pixels, more than its latent",
                )

    def _has_more(self, conditioning: int) -> bool:
        """Return whether a conditioning lacks its first pass, or one of those that it had."""
        assert self._shape is not None
        found = len(self._passes[conditioning])
        return not found or self._shape.pass_name(conditioning, found) in self._closed

    def _add_pass(self, conditioning: int) -> None:
        """Allocate the caches of a conditioning's next pass, with what was cached already."""
        shape, passes = self._shape, self._passes[conditioning]
        assert shape is not None
        closed = self._closed.get(shape.pass_name(conditioning, len(passes)), {})
        passes.append(
            [
                self._adopted(closed[size.name], shape)
                if size.name in closed
                else self._allocate(shape, conditioning, size)
                for size in self._attentions
            ]
        )

    def _adopted(self, cache: KVCache, shape: OpenedShape) -> KVCache:
        """Return a closed stream's cache for what runs; that of a loaded state is copied."""
        adopt = cache.copy if self._borrowed else cache.to
        return adopt(shape.device, shape.dtype)

    def _allocate(self, shape: OpenedShape, conditioning: int, size: AttentionSize) -> KVCache:
        steps = self._steps[shape.kind(conditioning)]
        tokens = tokens_at(shape.conditionings[conditioning][1], size.level)
        width = size.channels // size.heads
        cache_shape = (steps, size.heads, tokens, self._slots, width)
        return KVCache.allocate(cache_shape, shape.dtype, shape.device)

    def _resized(self, attention: int, cache: KVCache, tokens: int) -> KVCache:
        """Allocate a cache again: a node may shrink the features, if it does so at all steps."""
        steps, heads, before, slots, width = cache.keys.shape
        if cache.written:
            raise FeatureSizeError(
                f"The UNet's features at {self._attentions[attention].name} changed from {before} "
                f"to {tokens} pixels within a stream. A node that shrinks them at some steps only "
                "(PatchModelAddDownscale, Kohya Deep Shrink) cannot be used with Live2Diff: remove "
                "it."
            )
        shape = (steps, heads, tokens, slots, width)
        return KVCache.allocate(shape, cache.keys.dtype, cache.keys.device)

    def _named(self) -> dict[str, dict[str, KVCache]]:
        """Return all caches by the names of their passes and attentions."""
        named = dict(self._closed)
        for index, passes in enumerate(self._passes):
            for number, caches in enumerate(passes):
                assert self._shape is not None
                names = (size.name for size in self._attentions)
                name = self._shape.pass_name(index, number)
                named[name] = dict(zip(names, caches, strict=True))
        return named

    def _all(self) -> Iterator[KVCache]:
        return (cache for caches in self._named().values() for cache in caches.values())


def _passes_in(state: Mapping[str, Tensor]) -> list[str]:
    """List the names of the passes in a state."""
    return list(dict.fromkeys(key.split("/", 1)[0] for key in state))
