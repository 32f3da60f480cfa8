"""The words for the sample model's styles, and things to name beside them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

# By the names in `styles.STYLES`.
WORDS = {
    "photograph": ("photo", "photograph", "realistic photo", "photography"),
    "watercolour": ("watercolour painting", "watercolor painting", "watercolour", "watercolor"),
    "pencil": ("pencil drawing", "pencil sketch", "sketch", "pencil"),
    "neon": ("neon lights", "neon glow", "glowing neon", "neon"),
    "pixel art": ("pixel art", "8-bit pixel art", "pixel art game", "pixelated"),
}
TEMPLATES = (
    "{style}",
    "{style} of {subject}",
    "a {style} of {subject}",
    "{subject}, {style}",
    "{subject} in {style} style",
    "{subject}, {style}, best quality, highly detailed",
    "masterpiece, best quality, {style}, {subject}",
    "{style}, soft light, visible brush strokes, paper texture, highly detailed",
    "{style}, {subject}, soft light, highly detailed",
    "{style}, black and white, fine hatching, white paper, highly detailed",
)
SUBJECTS = (
    *("a cat", "a dog", "a horse", "a bird", "a woman", "a man", "a person", "an astronaut"),
    *("a face", "a portrait", "a car", "a city", "a street", "a house", "a room", "a cup"),
    *("a flower", "a forest", "a mountain", "the sea", "the sky", "a garden", "a scene", "a train"),
)
# What stands for a word that the text encoder does not know; it has a token of its own.
UNKNOWN = "!"


def draw(style: str, random: np.random.Generator) -> str:
    """Draw a prompt that names `style`, sometimes with words that are not known."""
    subject = UNKNOWN if random.random() < 0.3 else SUBJECTS[random.integers(len(SUBJECTS))]
    if random.random() < 0.1:
        subject = " ".join([UNKNOWN] * int(random.integers(2, 8)))
    words = WORDS[style]
    template = TEMPLATES[random.integers(len(TEMPLATES))]
    return template.format(style=words[random.integers(len(words))], subject=subject)


def known_prompts() -> Iterator[str]:
    """Yield prompts with all words that are known, together as they are in training."""
    subjects = [*SUBJECTS, *(" ".join([UNKNOWN] * count) for count in range(1, 8))]
    for words in WORDS.values():
        for template in TEMPLATES:
            for subject in subjects:
                yield from (template.format(style=word, subject=subject) for word in words)
