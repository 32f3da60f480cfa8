"""Live2Diff's memory of a stream: the attention window and one KV-cache per attention."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..stream.call_plan import FeatureSizeError
from .attention import PositionTables, WindowView
from .kv_cache import KVCache
from .window import AttentionMode, AttentionWindow


@dataclass(frozen=True)
class MotionCall:
    """The caches and windows that the motion modules use during one model call."""

    memory: MotionMemory
    view: WindowView

    def select(self, index: int) -> MotionCall:
        """Return the call with only the group at its `index`-th step."""
        return MotionCall(self.memory, self.view.select(index))


class MotionMemory:
    """All KV-caches of one stream, by conditioning and attention.

    Args:
        window: the attention window.
        steps: T of each kind of conditioning (`positive`, `negative`), by kind.
    """

    def __init__(self, window: AttentionWindow, steps: Mapping[str, int]) -> None:
        """Start without caches; each is allocated when its attention first runs."""
        self.window = window
        self._steps = dict(steps)
        self._caches: dict[tuple[str, str], KVCache] = {}
        # Keys and values of a saved stream; they become caches when their attention first runs.
        self._restored: dict[tuple[str, str], tuple[Tensor, Tensor]] = {}

    def group(self, frame: int) -> range:
        """Return the frames denoised together with `frame`."""
        return self.window.group(frame)

    def plan(self, groups: Sequence[range], steps: range, device: torch.device) -> MotionCall:
        """Prepare a model call in which group r of `groups` is at step r of `steps`."""
        rows = [self.window.row(group) for group in groups]
        return MotionCall(self, WindowView.from_rows(steps, rows, device))

    def cache(
        self,
        conditioning: str,
        layer: str,
        like: Tensor,
        positions: Callable[[], PositionTables],
    ) -> KVCache:
        """Return the cache of one attention, allocated on first use.

        Args:
            conditioning: name of the conditioning, which begins with its kind and a dot.
            layer: name of the attention.
            like: [R, HW, heads, Q, d] keys that are about to be written.
            positions: projects the attention's position tables.

        Raises:
            FeatureSizeError: `like` has another HW than the cache.
        """
        key = (conditioning, layer)
        if key not in self._caches:
            self._caches[key] = self._make_cache(key, like, positions())
            self._restored.pop(key, None)
        cache = self._caches[key]
        if cache.keys.shape[1] != like.shape[1]:
            raise FeatureSizeError(
                f"The UNet's features at {layer} changed from {cache.keys.shape[1]} to "
                f"{like.shape[1]} pixels within a stream. A node that shrinks them at some steps "
                "only (PatchModelAddDownscale, Kohya Deep Shrink) cannot be used with Live2Diff: "
                "remove it."
            )
        return cache

    def _make_cache(self, key: tuple[str, str], like: Tensor, positions: PositionTables) -> KVCache:
        if key in self._restored:
            keys, values = self._restored[key]
            # Copy, because caches are written in place, but the saved state must not change.
            return KVCache(keys.to(like, copy=True), values.to(like, copy=True), positions)
        _, tokens, heads, _, width = like.shape
        steps = self._steps[key[0].split(".")[0]]
        shape = (steps, tokens, heads, self.window.window_size, width)
        return KVCache.allocate(shape, positions, like)

    def commit(self) -> None:
        """Do nothing: the slots have been written in place."""

    def discard(self) -> None:
        """Do nothing: the next call writes the same slots before any frame sees them."""

    def reset(self) -> None:
        """Forget the stream and drop all caches."""
        self._caches.clear()
        self._restored.clear()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the window and all keys and values, as `conditioning/layer/keys`; not copied."""
        saved = {key: (cache.keys, cache.values) for key, cache in self._caches.items()}
        parts = ("keys", "values")
        caches = {
            f"{conditioning}/{layer}/{part}": tensor
            for (conditioning, layer), tensors in {**self._restored, **saved}.items()
            for part, tensor in zip(parts, tensors, strict=True)
        }
        return {"window": self._window_numbers(), **caches}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: the saved stream has another window.
        """
        if not torch.equal(state["window"], self._window_numbers()):
            raise ValueError(
                f"the saved stream has {_describe(state['window'])}, this one "
                f"{_describe(self._window_numbers())}."
            )
        self.reset()
        for name in state:
            if name.endswith("/keys"):
                conditioning, layer, _ = name.rsplit("/", 2)
                values = state[f"{conditioning}/{layer}/values"]
                self._restored[conditioning, layer] = (state[name], values)

    def _window_numbers(self) -> Tensor:
        window = self.window
        mode = list(AttentionMode).index(window.attention_mode)
        return torch.tensor([window.window_size, window.warmup_frames, mode])

    @property
    def nbytes(self) -> int:
        """Bytes that all keys and values hold now."""
        waiting = sum(keys.nbytes + values.nbytes for keys, values in self._restored.values())
        return waiting + sum(cache.nbytes for cache in self._caches.values())


def _describe(window: Tensor) -> str:
    size, warmup, mode = window.tolist()
    name = list(AttentionMode)[mode].value
    return f"a window of {size} frames, {warmup} to warm up, and the attention mode {name}"
