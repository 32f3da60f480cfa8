"""The recorded traces, through the ComfyUI UNet with the motion module applied, pipelined."""

import pytest
import torch
from safetensors.torch import load_file


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
@torch.inference_mode()
def test_trace(golden, golden_folder, motion, sd15, steps):
    module, engine = golden
    model = engine.live2diff_patch.apply_live2diff(sd15, motion, engine.window.AttentionWindow())
    trace = load_file(str(golden_folder / f"trace-T{steps}.safetensors"))
    ours = module.run_live2diff(engine, model, trace, depth=True)
    assert module.max_relative_error(ours, trace) <= module.LIMIT


@torch.inference_mode()
def test_trace_notices_missing_depth(golden, golden_folder, motion, sd15):
    module, engine = golden
    model = engine.live2diff_patch.apply_live2diff(sd15, motion, engine.window.AttentionWindow())
    trace = load_file(str(golden_folder / "trace-T2.safetensors"))
    ours = module.run_live2diff(engine, model, trace, depth=False)
    assert module.max_relative_error(ours, trace) > 1e-2


@pytest.mark.parametrize("name", ["stream.x0", "warmup.eps.1", "sqrt_alpha"])
def test_error_measure_notices(golden, golden_folder, name):
    module, _ = golden
    trace = load_file(str(golden_folder / "trace-T2.safetensors"))
    keys = ("stream.", "warmup.", "sqrt_alpha", "sqrt_beta", "c_skip", "c_out")
    ours = {key: value.clone() for key, value in trace.items() if key.startswith(keys)}
    assert module.max_relative_error(ours, trace) == 0
    ours[name].view(-1)[0] += trace[name].abs().max() * 1e-3
    assert module.max_relative_error(ours, trace) > module.LIMIT
    ours[name].view(-1)[0] = float("nan")
    assert module.max_relative_error(ours, trace) == float("inf")
    del ours[name]
    if not name.startswith("sqrt"):
        assert module.max_relative_error(ours, trace) == float("inf")
