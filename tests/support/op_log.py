"""A log of the tensor operations of a stream's threads, to compare one frame with the next.

Under inference mode `.item()` is `aten.item` and `bool()` is `aten.is_nonzero`; both wait for a
GPU. Lists and numpy arrays become tensors through `aten.lift_fresh`. `.tolist()`, `.numpy()` and
`.cpu()` leave no trace here; test_pretended_cuda.py finds those.
"""

import sys
import threading
from collections import Counter
from contextlib import contextmanager
from itertools import zip_longest
from typing import NamedTuple
from unittest.mock import patch

import torch
from code_place import Place, place_of
from torch.utils._python_dispatch import TorchDispatchMode

NOISE_THREAD = "live2diff-noise"
LIFT = "aten.lift_fresh.default"
# Operations whose result the host waits for.
WAITING = {"item", "is_nonzero", "_local_scalar_dense", "equal", "nonzero", "masked_select"}
WAITING |= {"_unique2", "unique_dim", "unique_consecutive", "repeat_interleave", "bincount"}
WAITING |= {"masked_scatter", "masked_scatter_", "nonzero_static"}
INDEXING = {"index", "index_put", "index_put_", "_unsafe_index", "_unsafe_index_put"}
MASKS = {torch.bool, torch.uint8}
# What the host's own code does in every call, and a node pack cannot change: (file, function,
# operation), with the reason.
HOST_EXEMPT = {
    # Compares the timestep with the range of a ControlNet that is not active at all steps.
    ("comfy/controlnet.py", "get_control", "aten.is_nonzero.default"),
}


class Operation(NamedTuple):
    """One call of a tensor operation; a plain tuple, because there are thousands per frame.

    Attributes:
        name: such as `aten.add.Tensor`.
        tensors: (shape, dtype) of all tensors that go in, then of those that come out.
        incoming: how many of them go in.
        place: where it was called.
    """

    name: str
    tensors: tuple
    incoming: int
    place: Place

    @property
    def looks(self):
        """What must be the same in every frame."""
        return self[:3]

    def __str__(self):
        shown = [f"{str(dtype)[6:]}{list(shape)}" for shape, dtype in self.tensors]
        arrow = f"{' '.join(shown[: self.incoming])} -> {' '.join(shown[self.incoming :])}"
        return f"{self.name} {arrow} at {self.place}"

    @property
    def exempt(self):
        """Whether the host does it and a node pack cannot change it."""
        return (self.place.file, self.place.function, self.name) in HOST_EXEMPT

    @property
    def waits(self):
        """Whether the host waits for the result on a GPU."""
        name = self.name.split(".")[1]
        # Without the tensor that is indexed, and without the values that are put into it.
        indices = self.tensors[1 : self.incoming - name.startswith("index_put")]
        masks = name in INDEXING and any(dtype in MASKS for _, dtype in indices)
        return (name in WAITING or masks) and not self.exempt


class OpLog:
    """Records the operations of all threads but the noise maker while it is installed.

    Attributes:
        segments: the operations of the thread that installed it, from one `cut` to the next.
        calls: calls of the UNet in each segment.
        others: the operations of other threads, by thread name.
    """

    def __init__(self):
        self.watching = False
        self.segments, self.calls, self.others = [], [], {}

    @contextmanager
    def installed(self):
        """Watch this thread, and those that start inside, for operations between `cut`s."""
        run = threading.Thread.run

        def watched(thread):
            with _Recorder(self, thread):
                run(thread)

        with patch.object(threading.Thread, "run", watched), _Recorder(self, None):
            yield self
        self.watching = False

    def cut(self):
        """Begin a segment."""
        self.watching = True
        self.segments.append([])
        self.calls.append(0)

    @contextmanager
    def segment(self):
        """Record the operations of the block alone."""
        self.cut()
        try:
            yield
        finally:
            self.watching = False

    def pause(self):
        """Record nothing until the next `cut`."""
        self.watching = False

    def count_call(self):
        """Count a call of the UNet."""
        if self.watching:
            self.calls[-1] += 1

    def operations(self, thread):
        """Return the list for the operations of `thread`; None installed the log."""
        if thread is None:
            return self.segments[-1]
        return self.others.setdefault(thread.name, [])

    def problems(self, period=1):
        """List in words all that a steady state must not do.

        Args:
            period: segments after which the operations are the same again.
        """
        return [*self._waits(), *self._lifts(), *self._changes(period), *self._unsteady_workers()]

    def _waits(self):
        found = Counter()
        for operation in [op for ops in [*self.segments, *self.others.values()] for op in ops]:
            if operation.waits:
                found[operation.name, operation.place] += 1
        return [f"{name} {count} times at {place}" for (name, place), count in found.items()]

    def _lifts(self):
        """One tensor made from host memory is allowed per call of the UNet."""
        worst = (0, "")
        for number, (segment, calls) in enumerate(zip(self.segments, self.calls, strict=True)):
            places = Counter(op.place for op in segment if op.name == LIFT and not op.exempt)
            more = sum(places.values()) - calls
            listed = "".join(f"\n    {count} at {place}" for place, count in places.items())
            text = f"{LIFT} {calls + more} times in frame {number} with {calls} calls{listed}"
            worst = max(worst, (more, text))
        return [worst[1]] if worst[0] else []

    def _changes(self, period):
        for number, (before, after) in enumerate(pairwise(self.segments, period)):
            pairs = zip_longest(before, after)
            for index, (one, other) in enumerate(pairs):
                if one is None or other is None or one.looks != other.looks:
                    return [
                        f"frames {number} and {number + period} differ in operation {index}; they "
                        f"have {len(before)} and {len(after)}:\n    {one}\n    {other}"
                    ]
        return []

    def _unsteady_workers(self):
        """A worker is not in step with the frames; what it does must recur four times at least."""
        found = []
        for name, operations in self.others.items():
            looks = [operation.looks for operation in operations]
            if shortest_period(looks) > len(looks) / 4:
                found.append(f"the {len(looks)} operations of the thread {name} do not recur")
        return found


def shortest_period(items):
    """Return the least distance at which all items are equal, at most their number."""
    borders, length = [0], 0
    for item in items[1:]:
        while length and item != items[length]:
            length = borders[length - 1]
        length += item == items[length]
        borders.append(length)
    return len(items) - borders[-1] if items else 0


def pairwise(items, distance):
    """Pair every item with the one `distance` behind it."""
    return zip(items, items[distance:], strict=False)


class _Recorder(TorchDispatchMode):
    """Records what one thread does."""

    def __init__(self, log, thread):
        super().__init__()
        self._log, self._thread = log, thread

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        # A worker gets its name only after its start.
        if self._log.watching and getattr(self._thread, "name", None) != NOISE_THREAD:
            tensors = _tensors(args, [])
            if kwargs:
                _tensors(kwargs.values(), tensors)
            incoming = len(tensors)
            _tensors((out,), tensors)
            operation = Operation(str(func), tuple(tensors), incoming, place_of(sys._getframe(1)))
            self._log.operations(self._thread).append(operation)
        return out


def _tensors(values, found):
    """Append (shape, dtype) of all tensors in `values`, also in lists of them, to `found`."""
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append((value.shape, value.dtype))
        elif isinstance(value, list | tuple):
            _tensors(value, found)
    return found
