"""One stream, from its first frame to its last: the session owns all of its state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from .call_plan import DenoiseModel, TemporalMemory
from .guidance import Guidance
from .output_queue import OutputQueue
from .pipeline import FrameInFlight, NoiseFn, PipelinedDenoiser
from .schedule import ConsistencySchedule
from .session_state import frames_of, read_session
from .state import join, part, require


class StreamSession:
    """Translates a stream of latents, frame by frame, with state of constant size.

    Frames come out in order, as many as went in: the output lags by the warm-up and by T-1 frames,
    and `drain` yields the rest. The result does not depend on how the stream is divided into calls.

    A session holds only state: every call receives the opened model, so that a live stream can
    outlast many openings of it.

    Attributes:
        frames_in: number of frames that have entered so far.
        ended: whether the stream has been drained.
        faults: where the frames that were returned last became NaN or infinite, see `faults`.
    """

    def __init__(
        self,
        schedule: ConsistencySchedule,
        noise: NoiseFn,
        memory: TemporalMemory | None = None,
        guidance: Guidance | None = None,
    ) -> None:
        """Start a stream.

        Args:
            schedule: the T noise levels.
            noise: (frame, step, shape) to noise; see `FrameNoise`.
            memory: temporal memory, owned by this session; None denoises each frame alone.
            guidance: None for no guidance; the model itself applies `full`.
        """
        self.pipeline = PipelinedDenoiser(schedule, noise, memory, guidance)
        self.reset()

    def reset(self) -> None:
        """Start over with frame 0 and reset the memory."""
        self._waiting: list[FrameInFlight] = []
        self._output = OutputQueue()
        self._shown = 0
        self.faults: list[Tensor] = []
        self._shape: torch.Size | None = None
        self._with_depth: bool | None = None
        self.frames_in = 0
        self.ended = False
        # Whether a state was loaded whose depth features are not compared with the model's yet.
        self._unchecked = False
        self.pipeline.reset()
        if self.memory is not None:
            self.memory.reset()

    @property
    def memory(self) -> TemporalMemory | None:
        """The temporal memory; None when each frame is denoised alone."""
        return self.pipeline.memory

    @property
    def frames_out(self) -> int:
        """Number of frames that have left so far."""
        return self._output.frames_out

    def open(self, model: DenoiseModel) -> None:
        """Allocate the memory for an opened model: once per opening, before anything is pushed.

        Raises:
            StateError: a state was loaded that does not fit the model.
        """
        if self.memory is not None:
            model.open_memory(self.memory)
        if self._unchecked:
            self._check_features(model)
            self._unchecked = False

    def push(
        self,
        model: DenoiseModel,
        latent: Tensor,
        depth: Tensor | None = None,
        fault: Tensor | None = None,
    ) -> list[Tensor]:
        """Push one frame and return the finished frames.

        If the model raises (on an interrupt, say), the stream is unchanged: push the frame again.
        If a frame becomes NaN or infinite, the stream goes on: its x0 is that of the frame before,
        and `faults` says where it happened.

        Args:
            model: predicts x0 of every row of a call.
            latent: [C, h, w] clean, scaled latent of the next frame.
            depth: [C, h, w] latent of its depth image; None streams without depth.
            fault: what the caller knows of the frame already; None for nothing.

        Returns:
            x0 of the finished frames, [C, h, w] each, all finite: none, one, or a whole group.

        Raises:
            ValueError: the size differs from that of earlier frames, the depth has another size,
                or only some frames have depth.
            RuntimeError: the stream has been drained.
        """
        self._check(latent, depth)
        if any(timeline.restarts(self.frames_in) for timeline in model.timelines):
            self._start_over(model)
        # Encoded once per frame, because it does not depend on the denoising step.
        feature = None if depth is None else model.encode_depth(depth.unsqueeze(0)).squeeze(0)
        entering = self.pipeline.enter(self.frames_in, self._shown, latent.float(), feature, fault)
        finished = self._advance(model, entering)
        self._shape = latent.shape
        self._with_depth = depth is not None
        self._shown += 1
        self.frames_in += 1
        self._output.enter()
        self._output.leave(finished)
        return self._taken()

    def can_repeat(self, model: DenoiseModel) -> bool:
        """Return whether the next frame may be a repeat.

        A repeat cannot be the first frame, in a group that is denoised together (the warm-up), or
        a frame whose prompt differs from that of the previous frame.
        """
        alone = self.memory is None or len(self.memory.group(self._shown)) == 1
        changes = any(timeline.changes_at(self.frames_in) for timeline in model.timelines)
        return self._shown > 0 and alone and not changes and not self.ended

    def repeat(self, model: DenoiseModel) -> list[Tensor]:
        """Count a frame that gets the x0 of the previous frame, without a call of the model.

        Returns:
            The same as `push`.

        Raises:
            RuntimeError: the frame cannot be a repeat, see `can_repeat`.
        """
        if not self.can_repeat(model):
            raise RuntimeError(f"frame {self.frames_in} cannot repeat the one before it.")
        self.frames_in += 1
        self._output.repeat()
        return self._taken()

    def cut(self, model: DenoiseModel) -> list[Tensor]:
        """Start the memory over with the next frame, as at a hard cut.

        Returns:
            The same as `push`: x0 of the frames inside, which are finished with the old memory.
        """
        self._start_over(model)
        return self._taken()

    def drain(self, model: DenoiseModel) -> Iterator[Tensor]:
        """End the stream and yield x0 of the frames still inside, [C, h, w] each, in order."""
        self.ended = True
        while self._output or self._inside():
            if self._output:
                x0, fault = self._output.take_one()
                self.faults = [fault]
                yield x0
            else:
                self._finish_some(model)

    def unreached(self, model: DenoiseModel) -> list[int]:
        """List the frames, after the last one so far, at which prompts of a schedule start."""
        found = {f for line in model.timelines for f in line.unreached(self.frames_in)}
        return sorted(found)

    def _taken(self) -> list[Tensor]:
        """Take all finished frames from the queue."""
        finished = self._output.take()
        self.faults = [frame.fault for frame in finished]
        return [frame.x0 for frame in finished]

    def _advance(self, model: DenoiseModel, entering: FrameInFlight) -> list[FrameInFlight]:
        """Add a frame, run the model unless its group is incomplete; return finished frames."""
        group = self.memory.group(entering.memory_index) if self.memory else range(1)
        if len(group) == 1:
            done = self.pipeline.advance(model, entering)
            return [] if done is None else [done]
        if entering.memory_index < group[-1]:
            self._waiting = [*self._waiting, entering]
            self.pipeline.wait(entering)
            return []
        finished = self.pipeline.denoise_group(model, [*self._waiting, entering])
        self._waiting = []
        return finished

    def _start_over(self, model: DenoiseModel) -> None:
        """Finish the frames inside with the current memory, then reset it."""
        while self._inside():
            self._finish_some(model)
        if self.memory is not None:
            self.memory.reset()
        self._shown = 0

    def _inside(self) -> bool:
        return bool(self._waiting or self.pipeline.in_flight)

    def _finish_some(self, model: DenoiseModel) -> None:
        """Run the model once for the frames in flight, or denoise an incomplete group."""
        if self._waiting:
            finished = self.pipeline.denoise_group(model, self._waiting)
            self._waiting = []
        else:
            done = self.pipeline.advance(model, None)
            finished = [] if done is None else [done]
        self._output.leave(finished)

    @property
    def warmup(self) -> tuple[int, int] | None:
        """Frames of the warm-up that have entered, and how many it has; None once it is over."""
        frames = 1 if self.memory is None else len(self.memory.group(0))
        return (self._shown, frames) if self._shown < frames else None

    @property
    def frames_inside(self) -> list[int]:
        """Indices of the frames that are in flight or wait for their group."""
        return [frame.frame for frame in (*self._waiting, *self.pipeline.in_flight)]

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything that determines how the stream continues; tensors are not copied."""
        counters = [self.frames_in, self._shown, int(self.ended)]
        state = {"counters": torch.tensor(counters), "timesteps": self._timesteps()}
        state |= join(output=self._output.state_dict())
        if self._shape is not None:
            state["shape"] = torch.tensor([*self._shape, int(bool(self._with_depth))])
        for place, frames in (("waiting", self._waiting), ("flight", self.pipeline.in_flight)):
            for index, frame in enumerate(frames):
                state |= {f"{place}.{index}.{k}": v for k, v in frame.state_dict().items()}
        if self.memory is not None:
            state |= join(memory=self.memory.state_dict())
        return state

    def load_state_dict(
        self, state: Mapping[str, Tensor], device: torch.device | None = None
    ) -> None:
        """Restore what `state_dict` returned.

        Args:
            state: the result of `state_dict`, on any device.
            device: the model's device. The frames inside are moved to it; the memory moves itself
                when the model runs. None leaves the frames on their device.

        Raises:
            ValueError: the state is of another kind of stream, or damaged.
        """
        read = read_session(state)
        if not torch.equal(state["timesteps"], self._timesteps()):
            saved, own = state["timesteps"].tolist(), self._timesteps().tolist()
            raise ValueError(
                f"the saved stream has {len(saved)} denoising steps, at timesteps {saved}; this "
                f"one has {len(own)}, at {own}."
            )
        memory = part(state, "memory")
        if bool(memory) != (self.memory is not None):
            some, none = ("saved stream", "MODEL") if memory else ("MODEL", "saved stream")
            raise ValueError(f"the {some} has a temporal memory, the {none} has none.")
        virtual = self.pipeline.guidance.virtual
        for frame in read.inside:
            told = "are missing" if virtual else "are not of this guidance"
            right = (frame.residual is not None) == virtual
            require(right, f"the residuals of frames inside {told}")
        if self.memory is not None:
            self.memory.load_state_dict(memory)
        self.frames_in, self._shown, self.ended = read.frames_in, read.shown, read.ended
        self._output = OutputQueue.from_state_dict(part(state, "output"), device)
        self._shape, self._with_depth = read.shape, read.with_depth
        self._waiting = frames_of(state, "waiting", device)
        self.pipeline.in_flight = frames_of(state, "flight", device)
        self._unchecked = any(frame.depth is not None for frame in read.inside)

    def to(self, device: torch.device) -> None:
        """Move the state to `device`; it must be opened again before the model runs."""
        if self.memory is not None:
            self.memory.to(device)
        self._waiting = [frame.to(device) for frame in self._waiting]
        self.pipeline.in_flight = [frame.to(device) for frame in self.pipeline.in_flight]
        self._output = OutputQueue.from_state_dict(self._output.state_dict(), device)

    @property
    def shape(self) -> tuple[torch.Size, bool] | None:
        """Size [C, h, w] of the latents, and whether depth comes with them; None before them."""
        return None if self._shape is None else (self._shape, bool(self._with_depth))

    @property
    def nbytes(self) -> int:
        """Bytes that the temporal memory holds now."""
        return self.memory.nbytes if self.memory is not None else 0

    def _check_features(self, model: DenoiseModel) -> None:
        """Compare the depth features of a loaded state with those that the model makes."""
        assert self._shape is not None
        inside = [*self._waiting, *self.pipeline.in_flight]
        like = torch.zeros(1, *self._shape, device=inside[0].latent.device)
        made = model.encode_depth(like)[0].shape
        for frame in inside:
            assert frame.depth is not None
            require(
                frame.depth.shape == made,
                f"the depth features of frame {frame.frame} are {list(frame.depth.shape)}, but the "
                f"MODEL's are {list(made)}",
            )

    def _check(self, latent: Tensor, depth: Tensor | None) -> None:
        if self.ended:
            raise RuntimeError("this stream has been drained; reset it or open a new one.")
        if self._shape not in (None, latent.shape):
            raise ValueError(
                f"a stream of {tuple(self._shape)} latents got one of {tuple(latent.shape)}: "
                "the frame size cannot change within a stream. Resize the frames, or reset it."
            )
        if self._with_depth not in (None, depth is not None):
            raise ValueError("depth must come with every frame of a stream or with none.")
        if depth is not None and depth.shape != latent.shape:
            raise ValueError(
                f"frame latent is {tuple(latent.shape)} but its depth latent is "
                f"{tuple(depth.shape)}; both must have one size."
            )

    def _timesteps(self) -> Tensor:
        return torch.tensor(self.pipeline.schedule.timesteps, dtype=torch.float64)
