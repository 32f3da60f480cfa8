"""Apply Feature Bank as ComfyUI calls it: results, refusals and what makes two of them differ."""

import comfy.model_patcher
import comfy.supported_models
import pytest
import torch
from host_bank import COUNT, banked, differ
from host_stream import core, frames, node, translate


def apply_node(model, **changes):
    inputs = {
        "bank": "merge",
        "queue_frames": 2,
        "interval": 2,
        "fusion_strength": 0.8,
        "similarity_threshold": 0.3,
        "fuse": "middle, up 2",
        "extend": "all",
        **changes,
    }
    return node("feature_bank", "Live2DiffApplyFeatureBank").execute(model, **inputs).args[0]


def config_of(model):
    return core("stream.memory").applied_memories(model)["feature_bank"].config


def test_the_node_gives_what_the_engine_gives(sd15):
    found = translate(apply_node(sd15), frames(COUNT))
    assert torch.equal(found, translate(banked(sd15), frames(COUNT)))
    queued = translate(apply_node(sd15, bank="queue", queue_frames=3), frames(COUNT))
    assert torch.equal(queued, translate(banked(sd15, kind="queue", queue_frames=3), frames(COUNT)))
    assert differ(found, queued)


def test_the_nodes_defaults_are_the_engines(sd15):
    schema = node("feature_bank", "Live2DiffApplyFeatureBank").define_schema()
    defaults = {entry.id: entry.default for entry in schema.inputs if entry.id != "model"}
    assert config_of(apply_node(sd15, **defaults)) == core("feature_bank.bank").BankConfig()
    options = next(entry for entry in schema.inputs if entry.id == "bank").options
    assert options == ["merge", "queue"]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("middle, up 2", ("middle", "up 2")),
        ("  Down 1,UP  4 ,", ("down 1", "up 4")),
        ("none", ()),
        ("", ()),
        ("All", None),
    ],
)
def test_levels_are_read_from_text(sd15, text, expected):
    expected = core("feature_bank.bank").ALL_LEVELS if expected is None else expected
    cls = node("feature_bank", "Live2DiffApplyFeatureBank")
    for used, other in (("fuse", "extend"), ("extend", "fuse")):
        config = config_of(apply_node(sd15, **{used: text, other: "middle"}))
        assert (getattr(config, used), getattr(config, other)) == (expected, ("middle",))
        assert cls.validate_inputs(**{used: text, other: "middle"}) is True


def test_a_bank_without_levels_is_refused(sd15):
    cls = node("feature_bank", "Live2DiffApplyFeatureBank")
    assert "the bank would do nothing" in cls.validate_inputs(fuse="none", extend="")
    with pytest.raises(ValueError, match="would do nothing"):
        apply_node(sd15, fuse="", extend="none")


@pytest.mark.parametrize("field", ["fuse", "extend"])
def test_levels_that_there_are_not_are_named_before_the_run(sd15, field):
    cls = node("feature_bank", "Live2DiffApplyFeatureBank")
    said = cls.validate_inputs(**{field: "middle, up 1"})
    assert said.startswith("Apply Feature Bank: there is no level 'up 1'") and "up 2" in said
    assert cls.validate_inputs() is True, "linked inputs are not known yet"
    with pytest.raises(ValueError, match="no level 'up 1'"):
        apply_node(sd15, **{field: "middle, up 1"})


@pytest.mark.parametrize("kind", ["SDXL", "SD20"])
def test_other_models_are_refused(sd15, kind):
    kind_config = getattr(comfy.supported_models, kind)
    config = kind_config(sd15.model.model_config.unet_config)
    config.set_inference_dtype(torch.float32, None)
    cpu = torch.device("cpu")
    model = comfy.model_patcher.CoreModelPatcher(
        config.get_model({}, ""), load_device=cpu, offload_device=cpu
    )
    with pytest.raises(ValueError, match=f"This MODEL is {kind}, but .* SD1.5 only"):
        apply_node(model)


def test_every_setting_makes_another_fingerprint(sd15):
    fingerprint = core("host.identity").model_identity
    changes = [
        {},
        {"bank": "queue"},
        {"bank": "queue", "queue_frames": 3},
        {"interval": 3},
        {"fusion_strength": 0.7},
        {"similarity_threshold": 0.5},
        {"fuse": "middle"},
        {"extend": "middle"},
    ]
    named = [fingerprint(apply_node(sd15, **change))["feature bank"] for change in changes]
    assert len(set(named)) == len(named)
    assert fingerprint(apply_node(sd15)) == fingerprint(apply_node(sd15))
    assert "feature bank" not in fingerprint(sd15)
