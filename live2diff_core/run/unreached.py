"""Tells of prompts that a stream has ended before."""

from __future__ import annotations

from ..stream.call_plan import DenoiseModel
from ..stream.session import StreamSession
from .notices import Notices


def tell_of_unreached_prompts(
    session: StreamSession, model: DenoiseModel, notices: Notices
) -> None:
    """Warn of the prompts of a Prompt Schedule that come after the last frame of `session`."""
    count = session.frames_in
    for start in session.unreached(model):
        notices.warn(
            f"the prompt that starts at frame {start} was never shown: there are only {count} "
            f"frames (0 to {count - 1})."
        )
