"""The frames at which the prompts of a stream change. Numbers only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PromptChange:
    """The change from one prompt to the next.

    Attributes:
        start: first frame in which the next prompt has a weight, at least 1.
        blend: frames over which its weight rises linearly to 1, at least 0; 0 is a cut.
        restart: whether the stream's memory restarts at `start`, with a new warm-up.

    Raises:
        ValueError: a number is out of range.
    """

    start: int
    blend: int = 0
    restart: bool = False

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.start < 1:
            raise ValueError(
                f"a prompt cannot take over at frame {self.start}: the one before it needs at "
                "least frame 0. Start it at frame 1 or later."
            )
        if self.blend < 0:
            raise ValueError(f"the blend is {self.blend} frames long; it must be at least 0.")

    def weight(self, frame: int) -> float:
        """Return the weight of the next prompt in `frame`, 0 to 1."""
        return min(max(frame - self.start + 1, 0) / (self.blend + 1), 1.0)


@dataclass(frozen=True)
class PromptTimeline:
    """All changes of a prompt, earliest first: change n leads from prompt n to prompt n+1.

    Raises:
        ValueError: a change starts before the previous one is over.
    """

    changes: tuple[PromptChange, ...] = ()

    def __post_init__(self) -> None:
        """Check that the changes follow one another."""
        for before, after in zip(self.changes, self.changes[1:], strict=False):
            if after.start <= before.start + before.blend:
                raise ValueError(
                    f"a prompt starts at frame {after.start}, but the one before it starts at "
                    f"{before.start} and blends in over {before.blend} frames. Start it at frame "
                    f"{before.start + before.blend + 1} or later."
                )

    def weights(self, frame: int) -> dict[int, float]:
        """Return the weights of the prompts in `frame`, by their numbers; they add up to 1."""
        index = sum(change.start <= frame for change in self.changes)
        if index == 0:
            return {0: 1.0}
        weight = self.changes[index - 1].weight(frame)
        return {index: 1.0} if weight == 1.0 else {index - 1: 1.0 - weight, index: weight}

    def restarts(self, frame: int) -> bool:
        """Return whether the memory restarts at `frame`."""
        return any(change.start == frame and change.restart for change in self.changes)

    def unreached(self, frames: int) -> list[int]:
        """List the starts of changes that a stream of `frames` frames does not reach."""
        return [change.start for change in self.changes if change.start >= frames]

    def changes_at(self, frame: int) -> bool:
        """Return whether `frame` has another prompt than the frame before it."""
        return frame > 0 and self.weights(frame) != self.weights(frame - 1)
