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
    """What the motion modules read during one model call."""

    memory: MotionMemory
    view: WindowView

    def select(self, index: int) -> MotionCall:
        """Keep only the group that is at the `index`-th step of this call."""
        return MotionCall(self.memory, self.view.select(index))


class MotionMemory:
    """All caches of one stream. The modules hold weights only.

    Args:
        window: who sees whom.
        steps: denoising steps at which each kind of conditioning is run, by kind; every step has a
            cache of its own.
    """

    def __init__(self, window: AttentionWindow, steps: Mapping[str, int]) -> None:
        """Start with no caches; each is made when its attention first runs."""
        self.window = window
        self._steps = dict(steps)
        self._caches: dict[tuple[str, str], KVCache] = {}
        # Keys and values of a saved stream; they join the caches when their attention first runs.
        self._restored: dict[tuple[str, str], tuple[Tensor, Tensor]] = {}

    def group(self, frame: int) -> range:
        """Frames denoised together with `frame`."""
        return self.window.group(frame)

    def plan(self, groups: Sequence[range], steps: range, device: torch.device) -> MotionCall:
        """Prepare a call in which group r of `groups` is at step r of `steps`."""
        rows = [self.window.row(group) for group in groups]
        return MotionCall(self, WindowView.from_rows(steps, rows, device))

    def cache(
        self,
        conditioning: str,
        layer: str,
        like: Tensor,
        positions: Callable[[], PositionTables],
    ) -> KVCache:
        """Get the cache of one attention, making it on first use.

        Args:
            conditioning: whose cache it is: with guidance each conditioning has its own. Its name
                begins with its kind and a dot.
            layer: name of the attention.
            like: [R, HW, heads, Q, d] keys that are about to be written.
            positions: makes the attention's projected position tables.

        Raises:
            FeatureSizeError: `like` has another size than what is cached.
        """
        key = (conditioning, layer)
        if key in self._restored:
            keys, values = self._restored[key]
            # Copies, because caches are written in place and the saved state is a value.
            self._caches[key] = KVCache(
                keys.to(like, copy=True), values.to(like, copy=True), positions()
            )
            del self._restored[key]
        if key not in self._caches:
            _, tokens, heads, _, dim = like.shape
            steps = self._steps[conditioning.split(".")[0]]
            shape = (steps, tokens, heads, self.window.window_size, dim)
            self._caches[key] = KVCache.allocate(shape, positions(), like)
        if self._caches[key].keys.shape[1] != like.shape[1]:
            raise FeatureSizeError(
                f"The UNet's features at {layer} changed from {self._caches[key].keys.shape[1]} to "
                f"{like.shape[1]} pixels within a stream. A node that shrinks them at some steps "
                "only (PatchModelAddDownscale, Kohya Deep Shrink) cannot be used with Live2Diff: "
                "remove it."
            )
        return self._caches[key]

    def commit(self) -> None:
        """Nothing to do: slots are written in place."""

    def discard(self) -> None:
        """Nothing to do: a frame that is tried again writes the same slots, unseen until then."""

    def reset(self) -> None:
        """Forget the stream and free its memory."""
        self._caches.clear()
        self._restored.clear()

    def state_dict(self) -> dict[str, Tensor]:
        """Window, and keys and values of every attention by name; not copied.

        Keys are called `conditioning/layer/keys`.
        """
        saved = {key: (cache.keys, cache.values) for key, cache in self._caches.items()}
        parts = ("keys", "values")
        caches = {
            f"{conditioning}/{layer}/{part}": tensor
            for (conditioning, layer), tensors in {**self._restored, **saved}.items()
            for part, tensor in zip(parts, tensors, strict=True)
        }
        return {"window": self._window_numbers(), **caches}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take up a saved stream.

        Raises:
            ValueError: it was made with another window.
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
        """Bytes held now."""
        waiting = sum(keys.nbytes + values.nbytes for keys, values in self._restored.values())
        return waiting + sum(cache.nbytes for cache in self._caches.values())


def _describe(window: Tensor) -> str:
    size, warmup, mode = window.tolist()
    name = list(AttentionMode)[mode].value
    return f"a window of {size} frames, {warmup} to warm up, and the attention mode {name}"
