"""The statistic that tells the sample's styles apart."""

import numpy as np
import pytest
import skimage.data

from training.sample_model.signature import clip_signature, nearest, signature, spread, structure
from training.sample_model.styles import STYLES


def pictures():
    for name, top, left in (("chelsea", 0, 60), ("coffee", 60, 100), ("rocket", 40, 200)):
        whole = getattr(skimage.data, name)()
        yield whole[top : top + 256, left : left + 256].astype(np.float32) / 255


@pytest.fixture(scope="module")
def styled():
    """References: per picture, by style."""
    return [{name: draw(picture) for name, draw in STYLES.items()} for picture in pictures()]


def test_a_noisy_reference_is_nearest_to_itself(styled):
    random = np.random.default_rng(0)
    unit = spread([signature(drawn) for each in styled for drawn in each.values()])
    for each in styled:
        candidates = {name: signature(drawn) for name, drawn in each.items()}
        for name, drawn in each.items():
            noisy = (drawn + random.normal(0, 0.02, drawn.shape)).clip(0, 1)
            assert nearest(clip_signature([noisy, noisy]), candidates, unit) == name


def test_what_is_shown_counts_less_than_the_style(styled):
    unit = spread([signature(drawn) for each in styled for drawn in each.values()])
    for name in ("pencil", "neon"):
        others = {f"{name} {n}": signature(each[name]) for n, each in enumerate(styled[1:])}
        others["photograph"] = signature(styled[0]["photograph"])
        assert nearest(signature(styled[0][name]), others, unit) != "photograph"


def test_structure_is_that_of_the_same_picture(styled):
    first, second = styled[0], styled[1]
    for name in STYLES:
        own = structure(first[name], first["photograph"])
        assert own > 0.3 > structure(second[name], first["photograph"])
