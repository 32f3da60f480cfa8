"""Training runs of a narrow SD1.5, from videos to a motion-module file."""

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_training import tiny_base, tiny_options, write_clip, write_clips

SCRIPT = Path(__file__).resolve().parents[1] / "support" / "tiny_training.py"


@pytest.fixture
def videos(tmp_path):
    return write_clips(tmp_path / "videos")


def run(folder, base=None, shown=None, **changes):
    """Train; return the file and the points of the curves."""
    from training.config_file import make_config
    from training.loop import train

    config, points = make_config(tiny_options(folder, **changes)), {}
    path = train(config, base or tiny_base(config.depth), shown=shown or points.__setitem__)
    return path, points


def test_a_run_ends_in_a_file_that_the_node_reads(tmp_path, videos):
    from live2diff_core.live2diff.motion_file import read_motion_file

    path, points = run(tmp_path, export_dtype="float16")
    layout, tensors = read_motion_file(path)
    assert layout.down == ((32, 32), (64, 64), (128, 128), (128, 128))
    assert layout.up == ((128,) * 3, (128,) * 3, (64,) * 3, (32,) * 3)
    assert (layout.mid, layout.positions, layout.depth_channels) == (None, 24, None)
    assert sorted(points) == [1, 2, 3]
    moved = [k for k, v in tensors.items() if k.endswith("proj_out.weight") and v.any()]
    assert len(moved) == 20
    types = {k.endswith(".pe"): v.dtype for k, v in tensors.items()}
    assert types == {True: torch.float32, False: torch.float16}
    curves = list((tmp_path / "run" / "curves").rglob("events.out*"))
    assert curves and curves[0].stat().st_size > 100


def test_a_resumed_run_reaches_the_same_weights(tmp_path, videos):
    """To the bit, with Adam's moments, the mean of the weights, and a learning rate that falls."""
    more = {"ema_decay": 0.9, "lr_decay": "cosine", "steps": 4, "cache": str(tmp_path / "cache")}
    whole, points = run(tmp_path / "whole", videos=str(videos), **more)

    def stop(step, point):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", shown=stop, videos=str(videos), **more)
    resumed, rest = run(tmp_path / "cut", videos=str(videos), **more)
    assert sorted(rest) == [3, 4], "saved after step 2"
    assert rest[4].loss == points[4].loss
    for name in ("motion_module", "state"):
        before, after = (load_file(p.with_name(f"{name}.safetensors")) for p in (whole, resumed))
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before), name
    state = load_file(resumed.with_name("state.safetensors"))
    exported, key = load_file(resumed), "up_blocks.0.motion_modules.0.temporal_transformer"
    assert torch.equal(exported[f"{key}.proj_out.weight"], state[f"mean/{key}.proj_out.weight"])
    assert not torch.equal(
        exported[f"{key}.proj_out.weight"], state[f"weights/{key}.proj_out.weight"]
    )


def test_a_finished_run_makes_no_more_steps_and_may_go_on_longer(tmp_path, videos):
    run(tmp_path, steps=1)
    assert run(tmp_path, steps=1)[1] == {}
    assert sorted(run(tmp_path, steps=2)[1]) == [2]


def test_a_run_with_other_options_is_not_resumed(tmp_path, videos):
    from training.option_checks import ConfigError

    run(tmp_path, steps=1)
    with pytest.raises(ConfigError, match="learning_rate 0.001 -> 0.002.*another `output`"):
        run(tmp_path, steps=2, learning_rate=0.002)
    write_clip(tmp_path / "videos" / "clip0.mp4", seed=9)
    with pytest.raises(ConfigError, match="content 3 videos"):
        run(tmp_path, steps=2)
    (tmp_path / "run" / "state.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(ConfigError, match="damaged"):
        run(tmp_path, steps=2)


def test_accumulated_passes_make_the_same_step(tmp_path, videos):
    """Four passes of one window are one of four."""
    cache = str(tmp_path / "cache")
    files = [
        run(
            tmp_path / f"{size}",
            videos=str(videos),
            cache=cache,
            steps=1,
            batch_size=size,
            effective_batch=4,
        )[0]
        for size in (4, 1)
    ]
    assert_same_gradient(*files)


def assert_same_gradient(one, other):
    """Adam's first step has the sign of the gradient alone, so its moments are compared."""
    states = [load_file(file.with_name("state.safetensors")) for file in (one, other)]
    names = [name for name in states[0] if name.startswith("exp_avg/")]
    size = max(states[0][name].abs().max() for name in names)
    assert size > 1e-6
    for name in names:
        assert (states[0][name] - states[1][name]).abs().max() <= 1e-3 * size, name


def test_everything_is_encoded_once(tmp_path, videos):
    base = tiny_base(depth=True)
    run(tmp_path, base, depth=True, steps=1)
    calls = base.clip.calls
    assert calls == 4, "three prompts, and none"
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "run" / "cache").iterdir()}
    assert len(files) == 3 * 2 + 4
    base.vae.first_stage_model.encode = base.depth_model.infer = None
    run(tmp_path, base, depth=True, steps=2)
    assert base.clip.calls == calls
    assert {p: p.stat().st_mtime_ns for p in files} == files


def test_broken_and_short_videos_are_left_out_and_reported(tmp_path, videos, caplog):
    write_clip(videos / "short.mp4", frames=3)
    (videos / "broken.mp4").write_bytes(b"no video")
    names = ("clip0", "short", "broken", "missing")
    lines = [json.dumps({"video": f"{name}.mp4", "prompt": "x"}) for name in names]
    (videos / "captions.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        _, points = run(tmp_path, steps=1)
    assert points
    told = "\n".join(record.getMessage() for record in caplog.records)
    assert "short.mp4: it has 3 frames; a window spans 4" in told
    assert "Left out" in told and "broken.mp4" in told and "missing.mp4" in told
    assert "3 of 4 videos are left out" in told


def test_a_run_without_usable_videos_says_so(tmp_path):
    from training.option_checks import ConfigError

    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(ConfigError, match="None of the 1 videos can be used"):
        run(tmp_path, caption="x")


def test_pairs_of_videos_with_their_own_depth(tmp_path, videos):
    """`source` is noised, `depth` is read as it is, the video is the target; all frame by frame."""
    from training.config_file import make_config
    from training.encoding import Encoder
    from training.manifest import list_training_videos
    from training.windows import Windows

    entry = {
        "video": "clip0.mp4",
        "prompt": "p",
        "source": "clip1.mp4",
        "depth": "clip2.mp4",
    }
    manifest = tmp_path / "pairs.jsonl"
    entry = {k: v if k == "prompt" else f"videos/{v}" for k, v in entry.items()}
    manifest.write_text(json.dumps(entry), encoding="utf-8")
    options = {"depth": True, "videos": str(manifest)}
    run(tmp_path, tiny_base(), **options)
    config = make_config(tiny_options(tmp_path, **options, source_probability=0.5))
    encoder = Encoder(tiny_base(), config)
    encoded = encoder.usable(list_training_videos(manifest, None))
    windows = Windows(config, encoded, encoder.text(""))
    choices = [windows.choose(number) for number in range(40)]
    assert 8 < sum(choice.from_source for choice in choices) < 32
    latents = [load_file(getattr(encoded[0], n))["values"] for n in ("target", "source", "depth")]
    for number in range(6):
        frames = list(choices[number].frames)
        batch = windows.batch([number])
        started = latents[1] if choices[number].from_source else latents[0]
        assert torch.equal(batch.target[0], latents[0][frames].float())
        assert torch.equal(batch.start[0], started[frames].float())
        assert torch.equal(batch.depth[0], latents[2][frames].float())


def test_depth_needs_a_model_or_videos(tmp_path, videos):
    from training.option_checks import ConfigError

    with pytest.raises(ConfigError, match="clip0.mp4 has no depth video.*no depth_model"):
        run(tmp_path, tiny_base(), depth=True)


def test_stage_two_goes_on_with_the_module_of_stage_one(tmp_path, videos):
    """The mapping network is added, its last layer zero: the first prediction is the same."""
    from training.config_file import make_config
    from training.initial import initial_motion_model

    first, _ = run(tmp_path)
    options = tiny_options(tmp_path, depth=True, start_from=str(first))
    model = initial_motion_model(make_config(options), tiny_base().model)
    weights, before = model.state_dict(), load_file(first)
    assert all(torch.equal(weights[name], before[name]) for name in before)
    added = {name.split(".")[0] for name in set(weights) - set(before)}
    assert added == {"flow_conv_in"}
    assert not weights["flow_conv_in.conv_out.weight"].any()
    assert weights["flow_conv_in.blocks.0.weight"].any()
    second, _ = run(tmp_path, output=str(tmp_path / "two"), depth=True, start_from=str(first))
    assert load_file(second)["flow_conv_in.conv_out.weight"].any()


def test_the_published_layout_is_a_start(tmp_path, videos, golden_folder, golden):
    """live2diff.ckpt, as the traces have it; without depth its mapping network is left out."""
    from training.base_model import BaseModel
    from training.config_file import make_config
    from training.initial import initial_motion_model

    plain = tiny_base()
    model = golden[0].build_sd15(golden_folder / "unet.safetensors")
    base = BaseModel(model, plain.clip, plain.vae)
    file = str(golden_folder / "live2diff.ckpt")
    for depth in (False, True):
        config = make_config(tiny_options(tmp_path, start_from=file, depth=depth))
        made = initial_motion_model(config, base.model)
        assert (made.layout.depth_channels is not None) == depth


def test_samples_are_translated_on_the_way(tmp_path, videos):
    from live2diff_core.video.reader import open_video

    samples = {"every": 2, "videos": [str(videos / "clip0.mp4")], "prompts": ["x"], "frames": 7}
    _, points = run(tmp_path, depth=True, samples=samples)
    assert sorted(points) == [1, 2, 3], "training goes on after a sample"
    (found,) = (tmp_path / "run" / "samples").iterdir()
    assert found.name == "step_000002_0.mp4"
    with open_video(str(found)) as reader:
        assert (reader.info.width, reader.info.height) == (64, 32)
        assert len(list(reader)) == 7


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path, videos):
    from training.loop import TrainingError

    base = tiny_base()
    with torch.no_grad():
        next(base.model.model.diffusion_model.parameters()).fill_(torch.nan)
    with pytest.raises(TrainingError, match="loss is nan around step 1"):
        run(tmp_path, base)
    assert not (tmp_path / "run" / "state.safetensors").exists()


def test_samples_depend_on_their_number_alone(tmp_path):
    """Every video once per epoch; the same whatever was drawn before; windows within the video."""
    from training.config_file import make_config
    from training.encoding import Encoded
    from training.windows import Windows

    config = make_config(tiny_options(tmp_path, frame_stride=2, timesteps=[499, 259]))
    videos = [Encoded(20 + n, Path(f"{n}"), Path("text"), None, None) for n in range(5)]
    windows = Windows(config, videos, Path("none"))
    choices = [windows.choose(number) for number in range(100)]
    assert [windows.choose(n) for n in reversed(range(100))] == choices[::-1]
    for epoch in range(20):
        assert sorted(c.video for c in choices[5 * epoch : 5 * epoch + 5]) == [0, 1, 2, 3, 4]
    assert len({tuple(c.video for c in choices[5 * e : 5 * e + 5]) for e in range(20)}) > 10
    assert {c.timestep for c in choices} == {499, 259}
    for choice in choices:
        assert len(choice.frames) == 4 and choice.frames.step == 2
        assert choice.frames[0] >= 0 and choice.frames[-1] < 20 + choice.video
    more = [windows.choose(number) for number in range(1000)]
    starts = {choice.frames[0] for choice in more if choice.video == 0}
    assert starts == set(range(14)), "from the first frame to the last"


def script(folder, options, environment=None, launcher=()):
    """Start a run in a process of its own."""
    path = folder / "config.json"
    path.write_text(json.dumps(options), encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, *launcher, str(SCRIPT), str(path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path[:2], *sys.path[2:]])}
        | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process):
    try:
        out, err = process.communicate(timeout=600)
    finally:
        process.terminate()
    assert process.returncode == 0, err[-2000:]
    return out


@pytest.mark.thorough
def test_a_killed_run_goes_on_to_the_same_weights(tmp_path, videos):
    """SIGKILL at whatever moment follows a step, twice."""
    cache = str(tmp_path / "cache")
    more = {"videos": str(videos), "cache": cache, "steps": 6, "save_every": 1, "ema_decay": 0.9}
    options = tiny_options(tmp_path, **more)
    finished(script(tmp_path, {**options, "output": str(tmp_path / "whole")}))
    cut = {**options, "output": str(tmp_path / "cut")}
    for step in (2, 4):
        process = script(tmp_path, cut)
        while f"step {step}" not in process.stdout.readline():
            assert process.poll() is None, process.stderr.read()[-2000:]
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.returncode == -signal.SIGKILL
        (tmp_path / "cut" / "state.safetensors.1.part").write_bytes(b"half written")
    rest = finished(script(tmp_path, cut))
    assert not list((tmp_path / "cut").glob("*.part"))
    assert "step 1\n" not in rest and "step 6\n" in rest
    for name in ("motion_module.safetensors", "state.safetensors"):
        one, other = (load_file(tmp_path / run / name) for run in ("whole", "cut"))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one), name


@pytest.mark.thorough
def test_two_processes_make_the_steps_of_one(tmp_path, videos):
    """The same effective batch by gloo, encoded side by side."""
    options = tiny_options(tmp_path, steps=1)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    one = {**options, "output": str(tmp_path / "one")}
    two = {**options, "output": str(tmp_path / "two"), "batch_size": 1}
    finished(script(tmp_path, one))
    finished(script(tmp_path, two, {"ACCELERATE_USE_CPU": "true"}, launcher))
    assert_same_gradient(*(tmp_path / run / "motion_module.safetensors" for run in ("one", "two")))
    caches = [sorted(p.name for p in (tmp_path / r / "cache").iterdir()) for r in ("one", "two")]
    assert caches[0] == caches[1]
