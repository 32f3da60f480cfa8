"""How the sample model is made: words, files, and fitting in several runs."""

from importlib import import_module

import numpy as np
import pytest
import torch
from torch import nn


@pytest.fixture(scope="module")
def making():
    names = ("denoiser", "export", "fitting", "prompts", "words")
    return {name: import_module(f"training.sample_model.{name}") for name in names}


@pytest.fixture(scope="module")
def loading():
    return import_module("live2diff_core.sample_model.loading")


TABLE = "text_model.embeddings.token_embedding.weight"


def test_files_keep_the_words_that_were_trained_and_one_for_all_others(making, loading):
    export, words = making["export"], making["words"]
    table = torch.randn(49408, 3)
    weights = {TABLE: table, "other": torch.ones(2)}
    kept = export.known_rows(weights)
    assert kept[loading.ROWS].shape[0] < 300
    full = loading.full_table(kept)
    assert torch.equal(full["other"], weights["other"])
    known = words.tokens(["neon lights, a cat, highly detailed"])
    assert torch.equal(full[TABLE][known], table[known])
    strange = words.tokens(["zebra"])[0, 1]
    unknown = words.tokens([making["prompts"].UNKNOWN])[0, 1]
    assert torch.equal(full[TABLE][strange], table[unknown])


def test_every_prompt_names_its_style_and_is_known(making, loading):
    prompts, words = making["prompts"], making["words"]
    known = set(words.tokens(list(prompts.known_prompts())).unique().tolist())
    random = np.random.default_rng(0)
    for style, names in prompts.WORDS.items():
        for _ in range(50):
            prompt = prompts.draw(style, random)
            assert any(name in prompt for name in names)
            tokens = words.tokens([prompt])
            assert tokens.shape == (1, 77) and set(tokens.flatten().tolist()) <= known


def test_weights_that_float16_cannot_hold_are_refused(making, tmp_path):
    with pytest.raises(ValueError, match="not finite in float16: large"):
        making["export"].export(tmp_path / "w.safetensors", {"large": torch.tensor([1e6])})
    assert not list(tmp_path.iterdir())


def test_fitting_goes_on_where_it_was(making, tmp_path):
    fitting = making["fitting"]
    network, target = nn.Linear(4, 1), torch.tensor([[1.0, -1.0, 2.0, 0.5]])

    def loss(step, share):
        x = torch.randn(64, 4, generator=torch.Generator().manual_seed(step))
        return (network(x) - x @ target.T).square().mean()

    steps = []

    def counted(step, share):
        steps.append(step)
        assert 0 <= share < 1
        return loss(step, share)

    path = tmp_path / "linear.pt"
    fitting.fit(network, counted, fitting.Plan(minutes=0.5 / 60, rate=0.05), path)
    first = len(steps)
    network = nn.Linear(4, 1)
    found = fitting.fit(network, counted, fitting.Plan(minutes=1.5 / 60, rate=0.05), path)
    # It goes on with the next batch, and with the weights that it had.
    assert steps == list(range(len(steps))) and len(steps) > first > 10
    torch.testing.assert_close(found.weight, target, atol=0.05, rtol=0)
    assert not any(p.requires_grad for p in found.parameters())


def test_a_translation_begins_with_the_photograph(making):
    denoiser, words = making["denoiser"], making["words"]
    latents = np.zeros((3, 5, 4, 48, 48), np.float16)
    latents[:, denoiser.PHOTOGRAPH] = 1
    drawn = [denoiser.Batches(latents, words.tokens).draw(step) for step in range(20)]
    again = denoiser.Batches(latents, words.tokens).draw(7)
    assert torch.equal(again.noise, drawn[7].noise)
    timesteps = torch.cat([batch.timesteps for batch in drawn])
    began = torch.cat([batch.from_photograph for batch in drawn])
    assert set(denoiser.FEW_STEPS) <= set(timesteps.tolist())
    assert began[timesteps == denoiser.FEW_STEPS[0]].float().mean() > 0.5
    assert not began[timesteps <= denoiser.FEW_STEPS[1]].any()
    scaled = making["denoiser"].LATENT_DEVIATION
    assert all((batch.photograph == scaled).all() for batch in drawn)


def test_everything_is_trained(making):
    denoiser, words = making["denoiser"], making["words"]
    model = denoiser.Denoiser()
    assert all(parameter.requires_grad for parameter in model.parameters())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01
    latents = np.random.default_rng(0).standard_normal((2, 5, 4, 48, 48)).astype(np.float16)
    batch = denoiser.Batches(latents, words.tokens).draw(0, share=0.9)
    denoiser.loss(model, batch, denoiser.schedules()[0], own_steps=True).backward()
    # The text encoder's last projection is of a pooled text, which SD1.5 does not use.
    unused = [name for name, p in model.named_parameters() if p.grad is None]
    assert unused == ["text.text_projection.weight"]
