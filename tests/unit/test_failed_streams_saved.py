"""Streams that failed in between are saved as they are."""

import pytest
import torch
import toy_stream as toy
from fed_session import FedSession

from live2diff_core.run.live import LiveStream
from live2diff_core.run.state_file import read_state, save_state
from live2diff_core.run.translator import FrameTranslator
from live2diff_core.stream.noise import FrameNoise
from live2diff_core.stream.prompt_timeline import PromptChange, PromptTimeline
from live2diff_core.stream.session import StreamSession
from live2diff_core.stream.similar_frames import SimilarFrameFilter, SkipRule


class Coder:
    def encode(self, images):
        latents = images.movedim(-1, 1)
        return torch.cat([latents, torch.zeros_like(latents[:, :1])], dim=1)

    def decode(self, latents):
        return latents[:, :3].movedim(1, -1).sigmoid()


def live_stream(model):
    session = StreamSession(toy.schedule(1), FrameNoise(7))
    similar = SimilarFrameFilter(7, SkipRule(0.9, 10))
    translator = FrameTranslator(session, similar)
    return LiveStream("live", {}, "", translator), toy.OpenToy(model, Coder())


def test_a_stream_that_failed_to_decode_can_be_saved(tmp_path):
    """Its last latent is also one that waits for the VAE; repeats wait as often as they are due."""
    live, opened = live_stream(toy.ToyModel())
    image = torch.rand(1, *toy.SIZE, 3)
    live.push(opened, image, hold=False)
    opened.coder.decode = None
    with pytest.raises(TypeError):
        live.push(opened, image + torch.randn(1, *toy.SIZE, 3) * 5, hold=False)
    live.save(tmp_path / "s")
    state, _ = read_state(tmp_path / "s")
    last = state["translator/session/output/last"]
    assert torch.equal(state["translator/latents/0"], last)


def test_a_stream_that_failed_after_its_memory_was_reset_can_be_saved(tmp_path):
    """What was inside is finished then, and its last frame may be repeated."""
    timeline = PromptTimeline((PromptChange(2, restart=True),))
    model = toy.ToyModel(timelines=[timeline])
    session = FedSession(StreamSession(toy.schedule(2), FrameNoise(7)), model)
    session.push_all(toy.frames(2))
    model.fail_at = len(model.plans) + 2
    with pytest.raises(InterruptedError):
        session.push(toy.frames(1)[0])
    save_state(tmp_path / "s", session.state_dict(), {})
    state, _ = read_state(tmp_path / "s")
    assert torch.equal(state["output/finished.0"], state["output/last"])


def test_parts_of_one_tensor_can_be_saved(tmp_path):
    whole = torch.rand(3, 4)
    save_state(tmp_path / "s", {"a": whole, "b": whole[1], "c": whole[1:]}, {})
    state, _ = read_state(tmp_path / "s")
    assert torch.equal(state["c"][0], state["b"]) and torch.equal(state["a"], whole)
