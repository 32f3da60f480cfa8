"""What happens to a stream between two frames where its settings change.

The same for a stream that runs live and for a recording that is rendered again, so that both give
the same pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..run.spec import StreamSpec
from ..run.translator import FrameTranslator
from ..stream.transfer import HostCopy
from .settings import LiveSettings

if TYPE_CHECKING:
    from ..run.opened import OpenStream


@dataclass(frozen=True)
class Boundary:
    """A change of everything but the prompts.

    Attributes:
        before, after: the settings.
        cut: whether the memory starts over in any case.
    """

    before: LiveSettings
    after: LiveSettings
    cut: bool

    @property
    def restarts(self) -> bool:
        """Whether a new stream begins, because this one cannot have the new settings."""
        return _levels(self.before.spec) != _levels(self.after.spec)

    @property
    def settings(self) -> LiveSettings:
        """The settings behind it, before prompts change."""
        return self.after.settled() if self.restarts else self.after

    def finish(self, translator: FrameTranslator, opened: OpenStream) -> list[HostCopy]:
        """Return the frames inside where they must not meet what comes: with the old settings."""
        if self.restarts:
            return list(translator.drain(opened))
        return translator.cut(opened) if self.cut else []

    def next_frame(self, translator: FrameTranslator) -> tuple[int, int]:
        """Return the numbers of the stream's next frame, and of the oldest one inside."""
        session = translator.session
        if self.restarts:
            return 0, 0
        return session.frames_in, min(session.frames_inside, default=session.frames_in)

    def carry(self, translator: FrameTranslator, settings: LiveSettings) -> None:
        """Let a stream that does not restart go on with `settings`, which may have new prompts."""
        spec = settings.spec
        translator.session.pipeline.guidance = spec.guidance
        translator.similar.follow(spec.skip_rule)
        if settings.texts != self.before.texts:
            # A similar frame would repeat a result of the previous prompt.
            translator.similar.reset()


def _levels(spec: StreamSpec) -> tuple[object, ...]:
    """Name what the state of a stream depends on, beside what cannot change live."""
    schedule, guidance = spec.schedule, spec.guidance
    return (
        tuple(schedule.timesteps),
        tuple(schedule.sigmas),
        spec.seed,
        guidance.active,
        guidance.virtual,
    )
