"""`train.py --dry-run`: one step at full widths, and the memory of a run."""

import re

import pytest
from training_options import OPTIONS


def report(channels, **changes):
    from training.config_file import make_config
    from training.dry_run import dry_run

    return dry_run(
        make_config({**OPTIONS, "dtype": "float32", "device": "cpu", **changes}), channels
    )


def gib(text, name):
    return float(re.search(rf"([\d.]+) GiB  {name}", text)[1])


def test_a_narrow_one_reports_gradients_and_memory():
    text = report(32, depth=True, width=512, height=512, window_size=4, warmup_frames=2)
    assert re.search(r"all \d+ motion parameters \([\d,]+ numbers\) have gradients", text)
    plain = gib(text, "activations without gradient_checkpointing")
    again = gib(text, "activations with it")
    assert 0 < again < 0.7 * plain
    assert gib(text, "together without") > plain


@pytest.mark.marathon
@pytest.mark.timeout(3600)
def test_one_real_step_of_sd15():
    """At its true widths, with small frames; it takes many minutes on two cores."""
    text = report(320, depth=True, dtype="bfloat16")
    # AnimateDiff's modules and the depth mapping network.
    assert "all 536 motion parameters (418,224,224 numbers) have gradients" in text
    assert gib(text, "motion module, float32") == pytest.approx(418_224_224 * 4 / 2**30, abs=0.01)
