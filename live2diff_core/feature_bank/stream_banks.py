"""All banks of a stream: by conditioning, pass and self-attention."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from ..stream.call_plan import FeatureSizeError, OpenedShape, Pass
from ..stream.memory import tokens_at
from ..stream.state import floats, part, require
from .bank import PARTS, BankedLayer
from .layer_banks import LayerBanks, Parts


class StreamBanks:
    """The banks, allocated when the stream opens and then reached by index.

    Args:
        layers: the attentions in the UNet's order.
        steps: T of each kind of conditioning (`positive`, `negative`), by kind.
        frames: frames in a full bank.
    """

    def __init__(
        self, layers: Sequence[BankedLayer], steps: Mapping[str, int], frames: int
    ) -> None:
        """Start without banks."""
        self.layers = tuple(layers)
        self._steps, self._frames = dict(steps), frames
        self._shape: OpenedShape | None = None
        # Passes after a conditioning's first are those of guidance nodes.
        self._passes: list[list[list[LayerBanks | None]]] = []
        # Banks that are not allocated, by the names of their passes and attentions, and by step.
        self._closed: dict[tuple[str, str], dict[int, Parts]] = {}
        self._sizes: tuple[tuple[int, int], ...] | None = None
        # Whether what is closed was loaded, and is not compared with what runs yet.
        self._loaded = False
        # Of the calls since the last commit, see `settle`.
        self._bad: dict[int, Tensor] = {}

    def open(self, shape: OpenedShape) -> None:
        """Allocate the banks for what runs; what a stream has taken in already is kept.

        Raises:
            StateError: a state was loaded that does not go with what runs.
        """
        if shape == self._shape:
            return
        self._closed, self._shape, self._sizes = self._stored(), shape, None
        if self._loaded:
            self._loaded = False
            self._check_loaded(shape)
        self._passes = [[] for _ in shape.conditionings]
        for index in range(len(shape.conditionings)):
            while self._steps[shape.kind(index)] and self._has_more(index):
                self._add_pass(index)

    def at(self, place: Pass, layer: int, tokens: int) -> LayerBanks:
        """Return the banks of one attention; those of a guidance node's pass are allocated.

        Args:
            place: the pass.
            layer: index of the attention.
            tokens: HW of its features.

        Raises:
            FeatureSizeError: `tokens` changed within the stream.
        """
        passes = self._passes[place.conditioning]
        while len(passes) <= place.number:
            self._add_pass(place.conditioning)
        banks = passes[place.number][layer]
        if banks is None or banks.tokens != tokens:
            banks = self._fitted(place, layer, tokens, banks)
        banks.met = True
        return banks

    def sizes(self) -> tuple[tuple[int, int], ...]:
        """List (index of an attention, HW) for every size of features that an attention has."""
        if self._sizes is None:
            found = {
                (layer, banks.tokens)
                for passes in self._passes
                for of_pass in passes
                for layer, banks in enumerate(of_pass)
                if banks is not None
            }
            self._sizes = tuple(sorted(found))
        return self._sizes

    def settle(self, step: int, bad: Tensor) -> None:
        """Note whether the pending frame at a step came out as NaN or infinite, 0-d bool."""
        self._bad[step] = bad

    def commit(self) -> None:
        """Write what is pending into the banks; those of bad frames keep what they have."""
        for banks in self._all():
            banks.commit(self._bad)
        self._bad = {}

    def discard(self) -> None:
        """Forget what is pending."""
        for banks in self._all():
            banks.pending = {}
        self._bad = {}

    def clear(self) -> None:
        """Forget all frames; the banks stay allocated."""
        self._closed = {}
        for banks in self._all():
            banks.clear()

    def to(self, device: torch.device) -> None:
        """Close the stream and move all banks to `device`."""
        self._closed = {
            key: {
                step: {name: part.to(device, copy=True) for name, part in parts.items()}
                for step, parts in by_step.items()
            }
            for key, by_step in self._stored().items()
        }
        self._passes, self._shape = [], None

    def state_dict(self) -> dict[str, Tensor]:
        """Return all banks that are not empty, as `pass/attention/step/part`; not copied."""
        return {
            f"{name}/{layer}/{step}/{part}": tensor
            for (name, layer), by_step in self._stored().items()
            for step, parts in by_step.items()
            for part, tensor in parts.items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned; `open` moves it to the model's device.

        Raises:
            StateError: it is damaged, or that of another model; nothing has changed then.
        """
        closed: dict[tuple[str, str], dict[int, Parts]] = {}
        for name, layer, step in dict.fromkeys(self._place_of(key) for key in state):
            parts = part(state, f"{name}/{layer}/{step}")
            closed.setdefault((name, layer), {})[step] = self._checked(layer, parts)
        self._passes, self._shape, self._closed = [], None, closed
        self._loaded = True

    def _place_of(self, key: str) -> tuple[str, str, int]:
        """Read pass, attention and step in the name of a tensor."""
        name, layer, step, kind = ["", "", "", *key.split("/")][-4:]
        steps = self._steps.get(name.split(".")[0], 0)
        known = step.isdecimal() and int(step) < steps and kind in PARTS
        require(known and any(own.name == layer for own in self.layers), f"'{key}' is unknown")
        return name, layer, int(step)

    def _checked(self, layer: str, parts: Parts) -> Parts:
        """Check the tensors of one bank, and return them."""
        (own,) = (own for own in self.layers if own.name == layer)
        require(parts.keys() == set(own.parts), f"of {layer}, {sorted(parts)} are there")
        tokens = len(floats(parts, "keys", None, own.channels))
        for name in own.parts:
            floats(parts, name, tokens, own.channels)
        require(tokens > 0, f"a bank of {layer} is empty")
        return parts

    def _check_loaded(self, shape: OpenedShape) -> None:
        """Compare the banks of a loaded state with what runs.

        A node may shrink the features of a level; then those of all its attentions are smaller.
        """
        for index in range(len(shape.conditionings)):
            place = Pass(index, 0)
            sizes: dict[int, dict[str, bool]] = {}
            for layer, own in enumerate(self.layers):
                if stored := self._closed.get(self._key(place, layer)):
                    fits = _fit(stored, self._tokens(place, layer), self._frames)
                    sizes.setdefault(own.level, {})[own.name] = fits
            for fitting in sizes.values():
                wrong = [name for name, fits in fitting.items() if not fits]
                alike = len(wrong) in (0, len(fitting))
                require(alike, f"the banks of {', '.join(wrong)} are of another size")

    @property
    def nbytes(self) -> int:
        """Bytes that all banks hold now, also those that are pending."""
        stored = (parts for by_step in self._closed.values() for parts in by_step.values())
        closed = sum(tensor.nbytes for parts in stored for tensor in parts.values())
        return closed + sum(banks.nbytes for banks in self._all())

    def _has_more(self, conditioning: int) -> bool:
        """Return whether a conditioning lacks its first pass, or one of those that it had."""
        assert self._shape is not None
        found = len(self._passes[conditioning])
        name = self._shape.pass_name(conditioning, found)
        return not found or any(name == closed for closed, _ in self._closed)

    def _add_pass(self, conditioning: int) -> None:
        """Add a conditioning's next pass, with what it took in already.

        The banks of a guidance node's pass are allocated as its attentions are reached, because it
        may leave some of them out.
        """
        passes = self._passes[conditioning]
        place = Pass(conditioning, len(passes))
        passes.append([None] * len(self.layers))
        for layer in range(len(self.layers)):
            key, tokens = self._key(place, layer), self._tokens(place, layer)
            wanted = place.number == 0 or key in self._closed
            # What does not fit comes from features of another size, and waits for them.
            if wanted and _fit(self._closed.get(key, {}), tokens, self._frames):
                self._allocate(place, layer, tokens, self._closed.pop(key, {}))

    def _fitted(
        self, place: Pass, layer: int, tokens: int, before: LayerBanks | None
    ) -> LayerBanks:
        """Allocate banks, again if need be: a node may shrink the features at all steps."""
        key = self._key(place, layer)
        stored = self._closed.get(key, {}) if before is None else before.stored()
        known = before is not None and before.met and not before.empty
        if known or not _fit(stored, tokens, self._frames):
            raise FeatureSizeError(
                f"The UNet's features at {self.layers[layer].name} changed to {tokens} pixels "
                "within a stream. A node that shrinks them at some steps only "
                "(PatchModelAddDownscale, Kohya Deep Shrink) cannot be used with the feature bank: "
                "remove it."
            )
        self._closed.pop(key, None)
        return self._allocate(place, layer, tokens, stored)

    def _allocate(
        self, place: Pass, layer: int, tokens: int, stored: Mapping[int, Parts]
    ) -> LayerBanks:
        """Allocate the banks of an attention, and copy into them what was stored."""
        shape = self._shape
        assert shape is not None
        size = (self._steps[shape.kind(place.conditioning)], tokens, self._frames)
        banks = LayerBanks(self.layers[layer], size, shape.dtype, shape.device)
        for step, parts in stored.items():
            banks.write(step, parts)
        self._passes[place.conditioning][place.number][layer] = banks
        self._sizes = None
        return banks

    def _tokens(self, place: Pass, layer: int) -> int:
        assert self._shape is not None
        size = self._shape.conditionings[place.conditioning][1]
        return tokens_at(size, self.layers[layer].level)

    def _key(self, place: Pass, layer: int) -> tuple[str, str]:
        assert self._shape is not None
        return self._shape.pass_name(*place), self.layers[layer].name

    def _stored(self) -> dict[tuple[str, str], dict[int, Parts]]:
        """Return all banks that are not empty by the names of their passes and attentions."""
        allocated = {
            self._key(Pass(index, number), layer): banks.stored()
            for index, passes in enumerate(self._passes)
            for number, of_pass in enumerate(passes)
            for layer, banks in enumerate(of_pass)
            if banks is not None and any(banks.filled)
        }
        return {**self._closed, **allocated}

    def _all(self) -> Iterator[LayerBanks]:
        return (
            banks
            for passes in self._passes
            for of_pass in passes
            for banks in of_pass
            if banks is not None
        )


def _fit(stored: Mapping[int, Parts], tokens: int, frames: int) -> bool:
    """Return whether stored banks can be of frames of HW `tokens`, of which a bank has `frames`.

    The number of frames that they are made of is not stored.
    """
    sizes = [len(parts["keys"]) for parts in stored.values()]
    return all(size % tokens == 0 and size <= frames * tokens for size in sizes)
