"""A stream's state is a value: saved, loaded, taken up as if nothing had happened."""

import pytest
import torch
import toy_stream as toy
from hypothesis import given, settings
from hypothesis import strategies as st

from live2diff_core.host.identity import json_digest
from live2diff_core.live2diff.window import AttentionMode, AttentionWindow
from live2diff_core.run.state_file import StateFileError, load_state, save_state

CONFIGS = [None, *(AttentionWindow(6, 3, mode) for mode in AttentionMode)]
SETTINGS = {"seed": 7, "steps": 2}


def opened(config, steps=2):
    return toy.session(toy.ToyModel(), steps, config)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.attention_mode.value if c else "none")
@given(data=st.data())
@settings(deadline=None, max_examples=15)
def test_resumed_is_uninterrupted(config, data, tmp_path_factory):
    count, steps = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 4))
    cuts = data.draw(st.sets(st.integers(0, count), max_size=4))
    latents, depth = toy.frames(count), toy.frames(count, seed=1)
    path = tmp_path_factory.mktemp("state") / "stream.safetensors"
    session, parts = opened(config, steps), []
    for index in range(count):
        if index in cuts:
            save_state(path, session.state_dict(), SETTINGS)
            session = opened(config, steps)
            session.load_state_dict(load_state(path, SETTINGS))
        parts += session.push(latents[index], depth[index])
    found = torch.stack([*parts, *session.drain()])
    assert torch.equal(found, toy.stream(toy.ToyModel(), latents, depth, steps, config))
    assert session.frames_in == session.frames_out == count


def test_a_saved_state_does_not_follow_the_stream(tmp_path):
    latents = toy.frames(12)
    session = opened(AttentionWindow(6, 3))
    session.push_all(latents[:6])
    save_state(tmp_path / "s", session.state_dict(), SETTINGS)
    rest = session.push_all(latents[6:])
    again = opened(AttentionWindow(6, 3))
    again.load_state_dict(load_state(tmp_path / "s", SETTINGS))
    assert torch.equal(again.push_all(latents[6:]), rest)


def test_streams_resumed_from_one_state_do_not_mix():
    latents = toy.frames(12)
    session = opened(AttentionWindow(6, 3))
    session.push_all(latents[:6])
    state = {name: tensor.clone() for name, tensor in session.state_dict().items()}
    before = {name: tensor.clone() for name, tensor in state.items()}
    expected = session.push_all(latents[6:])
    resumed = [opened(AttentionWindow(6, 3)) for _ in range(2)]
    for each in resumed:
        each.load_state_dict(state)
    for latent, other, frame in zip(latents[6:], toy.frames(6, seed=9), expected, strict=True):
        resumed[1].push(other)
        assert torch.equal(resumed[0].push(latent)[0], frame)
    assert all(torch.equal(state[name], before[name]) for name in before)


def test_frames_inside_go_where_the_model_is():
    session = opened(AttentionWindow(6, 3))
    session.push_all(toy.frames(4))
    again = opened(AttentionWindow(6, 3))
    again.load_state_dict(session.state_dict(), torch.device("meta"))
    assert [frame.latent.device.type for frame in again.pipeline.in_flight] == ["meta"]
    again.load_state_dict(session.state_dict())
    assert [frame.latent.device.type for frame in again.pipeline.in_flight] == ["cpu"]


def test_another_kind_of_stream_is_refused():
    session = opened(AttentionWindow(6, 3))
    session.push_all(toy.frames(6))
    state = session.state_dict()
    with pytest.raises(ValueError, match="window of 6"):
        opened(AttentionWindow(7, 3)).load_state_dict(state)
    with pytest.raises(ValueError, match="2 denoising steps"):
        opened(AttentionWindow(6, 3), steps=3).load_state_dict(state)
    with pytest.raises(ValueError, match="attention mode causal_warmup"):
        opened(AttentionWindow(6, 3, AttentionMode.CAUSAL)).load_state_dict(state)
    with pytest.raises(ValueError, match="has none"):
        opened(None).load_state_dict(state)
    with pytest.raises(ValueError, match="has none"):
        session.load_state_dict(opened(None).state_dict())
    with pytest.raises(ValueError, match="4 denoising steps"):
        opened(None).load_state_dict(opened(None, steps=4).state_dict())
    # What was refused has changed nothing.
    assert session.frames_in == 6


def test_other_settings_are_named(tmp_path):
    save_state(tmp_path / "s", {"counters": torch.tensor([0])}, SETTINGS)
    with pytest.raises(StateFileError, match="seed 7 -> 8"):
        load_state(tmp_path / "s", {**SETTINGS, "seed": 8})
    assert json_digest(SETTINGS) == json_digest(dict(reversed(SETTINGS.items())))
    assert json_digest(SETTINGS) != json_digest({**SETTINGS, "seed": 8})


def test_files_that_are_no_states(tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(StateFileError, match="no saved stream"):
        load_state(tmp_path / "missing", SETTINGS)
    (tmp_path / "text").write_text("hello")
    with pytest.raises(StateFileError, match="damaged"):
        load_state(tmp_path / "text", SETTINGS)
    save_file({"a": torch.zeros(1)}, str(tmp_path / "other"))
    with pytest.raises(StateFileError, match="not a saved stream"):
        load_state(tmp_path / "other", SETTINGS)


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "s"
    save_state(path, {"counters": torch.tensor([1])}, SETTINGS)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("live2diff_core.run.state_file.save_file", full)
    with pytest.raises(StateFileError, match="cannot be written to .*No space.*disk full"):
        save_state(path, {"counters": torch.tensor([2])}, SETTINGS)
    assert load_state(path, SETTINGS)["counters"].item() == 1
    assert list(tmp_path.iterdir()) == [path]
