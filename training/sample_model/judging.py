"""Whether the sample model translates: held-out clips, judged by a low-level statistic.

Each clip is translated into every style. An output counts as translated if its signature is nearer
to the reference of its own style than to the input and to the references of the other styles. Input
and references are compared as the sample's VAE shows them: it is what makes them soft, and not what
is judged. Structure is compared with that of the own input and of another clip's.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.cli_args
import numpy as np
import torch
from torch import Tensor

comfy.cli_args.args.cpu = True

from live2diff_core.live2diff.patch import apply_live2diff, load_motion_module  # noqa: E402
from live2diff_core.live2diff.window import AttentionWindow  # noqa: E402
from live2diff_core.run.spec import StreamSpec  # noqa: E402
from live2diff_core.sample_model.loading import (  # noqa: E402
    SampleModel,
    load_sample_model,
    motion_module_path,
)

from .clips import FIRST_HELD_OUT, scene  # noqa: E402
from .pictures import photographs  # noqa: E402
from .prompts import WORDS  # noqa: E402
from .scene_maker import SceneMaker  # noqa: E402
from .signature import clip_signature, nearest, spread, structure  # noqa: E402
from .styles import STYLES  # noqa: E402

INPUT = "photograph"
TARGETS = tuple(name for name in STYLES if name != INPUT)
SIDE, FRAMES, CLIPS = 256, 10, 40


@dataclass(frozen=True)
class Output:
    """One clip in one style.

    Attributes:
        clip: its number.
        style: which was asked for.
        nearest: to whose reference the output is nearest; the input's is "photograph".
        structure, another: how alike its outlines are to its input's, and to another clip's.
    """

    clip: int
    style: str
    nearest: str
    structure: float
    another: float


@dataclass(frozen=True)
class Judgement:
    """All outputs."""

    outputs: Sequence[Output]

    def translated(self, style: str | None = None) -> float:
        """Return the share of outputs, of one style or all, that are nearest to their own."""
        chosen = [each for each in self.outputs if style in (None, each.style)]
        return float(np.mean([each.nearest == each.style for each in chosen]))

    def summary(self) -> dict[str, Any]:
        """Return shares and means, ready for JSON."""
        styles = dict.fromkeys(each.style for each in self.outputs)
        return {
            "outputs": len(self.outputs),
            "translated": self.translated(),
            "by_style": {style: self.translated(style) for style in styles},
            "own_structure_nearer": float(np.mean([o.structure > o.another for o in self.outputs])),
            "structure": float(np.mean([each.structure for each in self.outputs])),
            "another": float(np.mean([each.another for each in self.outputs])),
        }


def stream_spec(
    sample: SampleModel, model: Any, prompt: str, depth: bool, seed: int = 0
) -> StreamSpec:
    """Describe a stream as Stream Video's workflow does: 4 steps, of which denoise 0.5 leaves 2."""

    def encoded(text: str) -> Any:
        return sample.clip.encode_from_tokens_scheduled(sample.clip.tokenize(text))

    return StreamSpec.from_inputs(
        *(model, encoded(prompt), encoded("")),
        **{"seed": seed, "steps": 4, "denoise": 0.5, "cfg": 1.0, "vae": sample.vae},
        depth_model=sample.depth_model if depth else None,
    )


def translated(
    spec: StreamSpec, pictures: Iterable[np.ndarray], note: Callable[[float], None] | None = None
) -> Iterator[np.ndarray]:
    """Stream pictures [H, W, 3] in 0..1 as Stream Video does, and yield as many.

    Args:
        spec: the stream.
        pictures: the frames.
        note: told the seconds that the model has taken so far, after every frame.
    """
    given = [torch.from_numpy(np.rint(picture * 255).astype(np.uint8)) for picture in pictures]
    translator = spec.start_translator(eight_bit=True)
    height, width = given[0].shape[:2]
    with spec.open((height // 8, width // 8), len(given)) as opened:
        translator.open(opened)
        for picture in given:
            yield from map(_picture, translator.push(opened, picture))
            if note is not None:
                note(translator.seconds["model"])
        yield from map(_picture, translator.drain(opened))


def _picture(copy: Any) -> np.ndarray:
    shown: Tensor = copy.get()
    return shown.cpu().numpy().astype(np.float32) / 255


def with_memory(sample: SampleModel) -> tuple[Any, bool]:
    """Return the MODEL with the motion module if there is one, and whether it reads depth."""
    path = motion_module_path()
    if path is None:
        return sample.model, False
    motion = load_motion_module(str(path))
    return apply_live2diff(sample.model, motion, AttentionWindow()), True


def held_out(clips: int) -> list[list[np.ndarray]]:
    """Render clips of scenes and photographs that were in no training set: FRAMES pictures each."""
    maker = SceneMaker(list(photographs(held_out=True)))
    scenes = (scene(maker, FIRST_HELD_OUT + n) for n in range(clips))
    return [[frame.picture for frame in each.frames(FRAMES, SIDE)] for each in scenes]


def shown(sample: SampleModel, pictures: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield pictures [H, W, 3] in 0..1 as the sample's VAE encodes and decodes them."""
    for picture in pictures:
        latents = sample.vae.encode(torch.from_numpy(picture)[None])
        yield sample.vae.decode(latents)[0].cpu().numpy()


@torch.no_grad()
def judge(inputs: Sequence[Sequence[np.ndarray]], styles: Sequence[str] = TARGETS) -> Judgement:
    """Translate clips into `styles`, and return what share was translated.

    Args:
        inputs: clips of pictures [H, W, 3] in 0..1; at least two clips.
        styles: of `STYLES`.
    """
    sample = load_sample_model()
    model, depth = with_memory(sample)
    references = [
        {name: clip_signature(shown(sample, map(draw, frames))) for name, draw in STYLES.items()}
        for frames in inputs
    ]
    unit = spread([found for each in references for found in each.values()])
    outputs = []
    for n, frames in enumerate(inputs):
        for style in styles:
            spec = stream_spec(sample, model, WORDS[style][0], depth)
            made = list(translated(spec, frames))
            outputs.append(
                Output(
                    n,
                    style,
                    nearest(clip_signature(made), references[n], unit),
                    structure(made[-1], frames[-1]),
                    structure(made[-1], inputs[(n + 1) % len(inputs)][-1]),
                )
            )
            logging.info("%s", outputs[-1])
    return Judgement(outputs)


def main() -> int:
    """Judge the sample model, and write the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("json", type=Path, help="file for the result")
    parser.add_argument("--clips", type=int, default=CLIPS)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    found = json.dumps(judge(held_out(options.clips)).summary(), indent=2)
    options.json.write_text(found + "\n")
    logging.info("%s", found)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
