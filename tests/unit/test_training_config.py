"""The configuration of a training run, and its list of videos."""

import json
import logging
from pathlib import Path

import pytest
import yaml
from training_options import OPTIONS

CONFIGS = Path(__file__).resolve().parents[2] / "training" / "configs"


def made(**changes):
    from training.config_file import make_config

    return make_config({**OPTIONS, **changes})


@pytest.mark.parametrize(
    "name, steps, depth", [("live2diff", 3000, False), ("live2diff_stage2", 6000, True)]
)
def test_the_papers_numbers(name, steps, depth):
    """Section 3.5 of the paper."""
    from training.config_file import read_config

    config = read_config(CONFIGS / f"{name}.yaml")
    assert (config.width, config.height) == (256, 256)
    assert (config.window_size, config.warmup_frames) == (16, 8)
    assert (config.attention_mode, config.depth) == ("causal_warmup", depth)
    assert (config.steps, config.optimizer, config.learning_rate) == (steps, "adam", 1e-4)
    assert (config.batch_size, config.effective_batch) == (4, 1024)
    assert config.accumulation(processes=8) == 32
    assert config.timesteps is None and config.loss == "eps"


def test_the_second_stage_starts_from_the_first():
    from training.config_file import read_config

    first, second = (read_config(CONFIGS / f"live2diff{n}.yaml") for n in ("", "_stage2"))
    assert Path(second.start_from).parent == Path(first.output)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"lerning_rate": 1}, "Unknown option lerning_rate. There are: checkpoint"),
        ({"samples": {"evry": 1}}, "Unknown option samples.evry"),
        ({"samples": {"every": 5}}, "samples.videos"),
        ({"samples": {"every": 5, "videos": ["a", "b"], "prompts": "x y z".split()}}, "prompts"),
        ({"samples": 3}, "samples should hold options"),
        ({"videos": None}, "lacks videos"),
        ({"attention_mode": "diagonal"}, "bidirectional, sliding, causal, causal_warmup"),
        ({"warmup_frames": 16}, "warmup_frames is 16 and window_size is 16"),
        ({"window_size": 32}, "position table has 24"),
        ({"learning_rate": "1e-4"}, "YAML reads 1e-4 as text"),
        ({"learning_rate": 0}, "learning_rate is 0"),
        ({"steps": 0}, "steps is 0"),
        ({"steps": 1.5}, "whole number"),
        ({"steps": True}, "whole number"),
        ({"depth": "yes"}, "true or false"),
        ({"width": 250}, "multiple of 8"),
        ({"timesteps": [1000]}, "from 0 to 999"),
        ({"timesteps": []}, "from 0 to 999"),
        ({"timesteps": [1.5]}, "list of numbers"),
        ({"source_probability": 2}, "from 0 to 1"),
        ({"source_probability": [1, 0]}, "each of the 0 timesteps"),
        ({"source_probability": "a"}, "number"),
        ({"loss": "l3"}, "one of eps, eps_l1, x0, min_snr"),
        ({"dtype": "float16"}, "one of float32, bfloat16"),
        ({"ema_decay": 1.0}, "below 1"),
        ({"betas": [0.9]}, "two numbers"),
        ({"max_gradient_norm": 0.0}, "above 0, or null"),
    ],
)
def test_a_wrong_option_is_named_with_what_is_allowed(changes, message):
    from training.option_checks import ConfigError

    with pytest.raises(ConfigError, match=message):
        made(**changes)


def test_files_that_are_no_configuration(tmp_path):
    from training.config_file import read_config
    from training.option_checks import ConfigError

    path = tmp_path / "config.yaml"
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(path)
    for text, message in (("a: [", "no valid YAML"), ("- 1", "should hold options")):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match=message):
            read_config(path)


def test_options_on_the_command_line_win(tmp_path):
    from training.config_file import read_config
    from training.option_checks import ConfigError

    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(OPTIONS), encoding="utf-8")
    config = read_config(path, ["steps=7", "videos=other", "timesteps=[499, 259]"])
    assert (config.steps, config.videos, config.timesteps) == (7, "other", (499, 259))
    assert read_config(path).steps == 3000
    with pytest.raises(ConfigError, match="name=value"):
        read_config(path, ["steps"])


def test_an_effective_batch_that_cannot_be_made():
    from training.option_checks import ConfigError

    config = made(batch_size=3, effective_batch=16)
    with pytest.raises(ConfigError, match="multiple of 6"):
        config.accumulation(processes=2)


def test_learning_rates():
    steady = made(steps=100)
    assert {steady.learning_rate_at(step) for step in range(100)} == {1e-4}
    falling = made(steps=100, lr_decay="cosine", lr_warmup_steps=4)
    rates = [falling.learning_rate_at(step) / 1e-4 for step in range(101)]
    assert rates[:3] == pytest.approx([0.2, 0.4, 0.6], rel=0.01)
    assert max(rates) == rates[4] and rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[50] == pytest.approx(0.5) and rates[100] == pytest.approx(0)


def test_what_a_resumed_run_may_change():
    one, other = made(), made(steps=5, output="elsewhere", threads=2, log_every=3, batch_size=2)
    assert one.identity() == other.identity()
    for change in ({"seed": 1}, {"depth": True}, {"loss": "x0"}, {"effective_batch": 4}):
        assert one.identity() != made(**change).identity()
    falling = made(lr_decay="cosine").identity()
    assert falling != made(lr_decay="cosine", steps=5).identity()


def listed(place, caption=None):
    from training.manifest import list_training_videos

    return list_training_videos(place, caption)


def test_videos_of_a_folder(tmp_path):
    from training.manifest import ManifestError

    for name in ("b10.mp4", "b2.mp4", "sub/c.mov", ".hidden.mp4", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = listed(tmp_path, "a prompt")
    assert [v.video.name for v in found] == ["b2.mp4", "b10.mp4", "c.mov"]
    assert {v.prompt for v in found} == {"a prompt"}
    with pytest.raises(ManifestError, match="have no prompts.*captions.jsonl.*caption"):
        listed(tmp_path)


def test_videos_of_a_manifest(tmp_path):
    entries = [
        {"video": "a.mp4", "prompt": "one", "depth": "d.mp4", "source": "../s.mp4"},
        {"video": str(tmp_path / "b.mp4")},
    ]
    lines = "\n\n".join(json.dumps(entry) for entry in entries)
    (tmp_path / "captions.jsonl").write_text(lines, encoding="utf-8")
    for place in (tmp_path, tmp_path / "captions.jsonl"):
        first, second = listed(place, "other")
        assert (first.prompt, second.prompt) == ("one", "other")
        assert first.depth == tmp_path / "d.mp4" and first.source == tmp_path / ".." / "s.mp4"
        assert second.video == tmp_path / "b.mp4" and second.source is None


@pytest.mark.parametrize(
    "line, message",
    [
        ("{", "line 2: no valid JSON"),
        ("3", "line 2: expected an object"),
        ('{"prompt": "x"}', "line 2: expected an object"),
        ('{"video": "a"}', "line 2: it has no prompt"),
        ('{"video": "a", "prompt": "x", "dept": "b"}', "line 2: unknown dept"),
        ('{"video": "a", "prompt": "x", "depth": 3}', "line 2: depth is 3"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, message):
    from training.manifest import ManifestError

    path = tmp_path / "list.jsonl"
    path.write_text('{"video": "a", "prompt": "x"}\n' + line, encoding="utf-8")
    with pytest.raises(ManifestError, match=message):
        listed(path)


def test_places_without_videos(tmp_path):
    from training.manifest import ManifestError

    with pytest.raises(ManifestError, match="no folder or manifest"):
        listed(tmp_path / "missing")
    with pytest.raises(ManifestError, match="lists no videos"):
        listed(tmp_path, "x")


def test_masks_of_a_window_are_figure_1():
    """The red square: rows see columns, as written out from the paper for whole sequences."""
    import figure1

    from live2diff_core.live2diff.window import AttentionWindow

    for mode in ("bidirectional", "sliding", "causal", "causal_warmup"):
        window = AttentionWindow(6, 3, mode)
        rows = [window.row(window.group(frame)) for frame in range(6)]
        places = [window.group(frame).index(frame) for frame in range(6)]
        seen = [
            [position >= 0 for position in row.key_positions[place]]
            for row, place in zip(rows, places, strict=True)
        ]
        assert seen == figure1.mask(window, 6).tolist(), mode


def command(*arguments):
    from training.command import main

    return main([str(argument) for argument in arguments])


def test_the_command_explains_wrong_input_in_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    assert command(tmp_path / "none.yaml") == 2
    assert capsys.readouterr().err.startswith("error: The configuration")
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({**OPTIONS, "steps": -1}), encoding="utf-8")
    assert command(path) == 2
    assert capsys.readouterr().err == "error: steps is -1; it must be at least 1.\n"


def test_help_names_what_a_run_writes(capsys):
    with pytest.raises(SystemExit):
        command("--help")
    text = capsys.readouterr().out
    for word in ("--dry-run", "--comfyui", "motion_module.safetensors", "accelerate launch"):
        assert word in text
