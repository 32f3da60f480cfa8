"""What each kind of StreamingT2V's traces records, computed by the engine. See `golden_t2v`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

CHECKPOINT, ENHANCER = "streaming_t2v.ckpt", "enhancer_unet.safetensors"
# Our result under a trace's name, as often as there are ways to it.
Found = Iterator[tuple[str, Any]]


def _model(engine: SimpleNamespace, folder: Path, loaded: dict[str, Any]) -> Any:
    if "t2v" not in loaded:
        loaded["t2v"] = engine.host_parts.load_t2v(folder / CHECKPOINT)
    return loaded["t2v"]


def _signs(pictures: Any) -> Any:
    """From bytes to -1..1, in float32."""
    return pictures.float() / 255 * 2 - 1


def _rows(trace: dict[str, Any], name: str) -> Any:
    import torch

    return torch.cat([trace[f"{name}.uncond"], trace[f"{name}.cond"]])


def _embedded(model: Any, trace: dict[str, Any]) -> Any:
    """Return the embeddings of the grey picture and the anchor: recorded, or made here."""
    import torch

    if "clip.cond" in trace:
        return _rows(trace, "clip")
    anchor = _signs(trace["anchor_u8"][0])
    return model.embed(torch.cat([torch.zeros_like(anchor), anchor]))


def run_unet(engine: SimpleNamespace, folder: Path, trace: Any, loaded: dict[str, Any]) -> Found:
    """Yield the results of single calls of the denoiser."""
    model, _, _ = _model(engine, folder, loaded)
    denoiser, x, times = model.denoiser, trace["x"], trace["timesteps"]
    text, embedded = _rows(trace, "text"), _embedded(model, trace)
    pictures = _signs(trace["cond_frames_u8"][0]) if "cond_frames_u8" in trace else None
    condition = denoiser.condition(text, embedded, pictures)
    if "anchor_u8" in trace:
        # The image encoder's own embeddings; the calls below take the recorded ones.
        made = _embedded(model, {"anchor_u8": trace["anchor_u8"]})
        yield from zip(("clip.uncond", "clip.cond"), made.split(1), strict=True)
    tokens = denoiser.resampler(embedded)
    yield from zip(("tokens.uncond", "tokens.cond"), tokens.split(1), strict=True)
    if pictures is not None:
        yield "cam.cond_embedding", condition.memory
    with _recording(denoiser) as recorded:
        yield "eps.0", denoiser(x, times[0], condition)
    yield from ((name, tensor.unflatten(0, (len(text), -1))) for name, tensor in recorded.items())
    for step, time in enumerate(times[1:], 1):
        yield f"eps.{step}", denoiser(x, time, condition)
    yield "eps_no_cam.0", denoiser(x, times[0], denoiser.condition(text, embedded))
    yield "eps_base.0", denoiser(x, times[0], denoiser.condition(text))


class _recording:  # noqa: N801 (used like a function)
    """Records what CAM's encoder finds and what the mergers make of it, during one call."""

    def __init__(self, denoiser: Any) -> None:
        unet = denoiser.base_model
        mergers = dict(enumerate(unet.cross_attention_merger_down_blocks))
        mergers["mid"] = unet.cross_attention_merger_mid_block
        self._found: dict[str, Any] = {}
        self._handles = [
            module.register_forward_hook(self._note(f"merged.{name}"))
            for name, module in mergers.items()
        ]
        self._handles.append(denoiser.unet.register_forward_hook(self._features))

    def _note(self, name: str) -> Callable[..., None]:
        def note(_: Any, __: Any, output: Any) -> None:
            self._found[name] = output

        return note

    def _features(self, _: Any, __: Any, output: Any) -> None:
        *skips, middle = output
        self._found |= {f"cam.{index}": skip for index, skip in enumerate(skips)}
        self._found["cam.mid"] = middle

    def __enter__(self) -> dict[str, Any]:
        return self._found

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()


def run_apm(engine: SimpleNamespace, folder: Path, trace: Any, loaded: dict[str, Any]) -> Found:
    """Yield the tokens of the anchor, what the attentions read, and the picture's way to CLIP."""
    model, _, _ = _model(engine, folder, loaded)
    denoiser = model.denoiser
    if "clip.cond" in trace:
        embedded = _rows(trace, "clip")
        tokens = denoiser.resampler(embedded)
        yield from zip(("tokens.uncond", "tokens.cond"), tokens.split(1), strict=True)
        for name, context in denoiser.condition(_rows(trace, "text"), embedded).contexts.items():
            yield f"mixed.{name}", context
    for name in [name for name in trace if name.endswith(".image_u8")]:
        picture, size = _signs(trace[name]), name.removesuffix(".image_u8")
        yield f"{size}.pixels", engine.appearance.clip_pixels(picture)
        yield f"{size}.embed", model.embed(picture)


def run_loop(engine: SimpleNamespace, folder: Path, trace: Any, loaded: dict[str, Any]) -> Found:
    """Yield every step by itself, from what was recorded before it, and then the whole loop."""
    model, _, vae = _model(engine, folder, loaded)
    height, width = trace["video_u8"].shape[2:]
    spec = engine.spec.LongVideoSpec(
        model,
        vae,
        [[trace["text.cond"], {}]],
        [[trace["text.uncond"], {}]],
        width,
        height,
        steps=len(trace["timesteps"]),
    )
    ddim = engine.sampling.DDIM(spec.steps, spec.eta)
    yield "timesteps", ddim.timesteps
    bars = ddim.scheduler.alphas_cumprod
    yield "alpha_bar", bars[ddim.timesteps]
    before = (ddim.timesteps - 1000 // spec.steps).clamp(min=0)
    yield "alpha_bar_prev", bars[before]
    with spec.open((height // 8, width // 8), None) as opened:
        yield from _steps(engine, opened, spec, ddim, trace)
    yield from _whole_loop(engine, model, spec, trace)


def _chunks(trace: dict[str, Any]) -> range:
    return range(sum(name.endswith(".noise") for name in trace))


def _steps(engine: SimpleNamespace, opened: Any, spec: Any, ddim: Any, trace: Any) -> Found:
    import torch

    model = spec.model
    opened.need_vae(spec.height, spec.width)
    text, guidance = _rows(trace, "text"), engine.sampling.T2VGuidance()
    anchor = _signs(trace["video_u8"][:1])
    embedded = model.embed(torch.cat([torch.zeros_like(anchor), anchor]))
    tokens = model.denoiser.resampler(embedded)
    memory = trace["video_u8"][-8:].float() / 255
    for chunk in _chunks(trace):
        yield f"c{chunk}.context", torch.cat([text, tokens], dim=1)
        condition = model.denoiser.condition(text, embedded, memory * 2 - 1)
        x = trace[f"c{chunk}.noise"]
        for step, time in enumerate(ddim.timesteps):
            x = trace.get(f"c{chunk}.x.{step}", x)
            eps = model.denoiser(x, time, condition)
            yield f"c{chunk}.eps.{step}", eps
            noise = trace[f"c{chunk}.variance_noise.{step}"].transpose(0, 1).unsqueeze(0)
            x = ddim.step(guidance(eps), step, x, noise)
            yield f"c{chunk}.{'latents' if step + 1 == spec.steps else f'x.{step + 1}'}", x
        decoded = torch.stack([opened.decode(latent)[0] for latent in x[0, :, 8:].unbind(1)])
        memory = trace.get(f"c{chunk}.frames8", decoded.movedim(-1, 1))


def _whole_loop(engine: SimpleNamespace, model: Any, spec: Any, trace: Any) -> Found:
    """Drive the stream of frames as a run of the node does."""
    import torch

    def noise(chunk: int, step: int) -> Any:
        if step:
            return trace[f"c{chunk}.variance_noise.{step - 1}"].transpose(0, 1)
        return trace[f"c{chunk}.noise"][0]

    stream, calls = engine.long_video.LongVideo(spec, noise), []
    handle = model.denoiser.register_forward_hook(lambda _, given, out: calls.append((given, out)))
    request = torch.zeros(1, 1, 3, dtype=torch.uint8)
    try:
        with spec.open((spec.height // 8, spec.width // 8), None) as opened:
            stream.open(opened)
            for picture in trace["video_u8"].movedim(1, -1):
                stream.push(opened, picture.contiguous())
            for chunk in _chunks(trace):
                for _ in range(8):
                    stream.push(opened, request)
                state = stream.state_dict()
                frames = torch.stack([state[f"recent/{index}"] for index in range(8)])
                yield f"c{chunk}.frames8", frames.movedim(-1, 1)
                for step in range(spec.steps):
                    (x, _, _), eps = calls[chunk * spec.steps + step]
                    yield f"c{chunk}.x.{step}", x
                    yield f"c{chunk}.eps.{step}", eps
    finally:
        handle.remove()


def run_enhancer(
    engine: SimpleNamespace, folder: Path, trace: Any, loaded: dict[str, Any]
) -> Found:
    """Yield the UNet's calls, every step by itself, and the film along the diagonal front."""
    import torch

    unet = engine.enhancer_file.build_enhancer(folder / ENHANCER, torch.float32)
    for index, time in enumerate(trace.get("unet.t", ())):
        yield f"unet.out.{index}", unet(trace["unet.x"], time, trace["y"])
    yield "schedule.sigmas", engine.enhancer_schedule.noise_levels()[::37]
    if "sigmas" not in trace:
        return
    ladder = engine.enhancer_schedule.Ladder.of(len(trace["sigmas"]) - 1)
    yield "sigmas", torch.tensor(ladder.sigmas)
    yield from ((f"t.{i}", torch.tensor([time])) for i, time in enumerate(ladder.times))
    if "z" not in trace:
        return
    text = torch.cat([trace["y_neg"], trace["y"]])
    refine = engine.enhancer.ChunkRefiner(unet, ladder, text)
    start = ladder.noised(trace["z"], trace["noise"])
    yield "noised", start / ladder.sigmas[0]
    cuts = _cuts(folder, trace)
    yield from _enhancer_steps(refine, ladder, start, trace, cuts)
    yield from _front(engine, refine, ladder, start[0], trace, cuts)


def _cuts(folder: Path, trace: dict[str, Any]) -> list[range]:
    """Return the frames of the chunks: as config.json says, or as in the published code."""
    path = folder / "config.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    sizes = known.get("enhancer", {})
    chunk, overlap = sizes.get("chunk", 24), sizes.get("overlap", 8)
    starts = range(0, max(trace["z"].shape[2] - overlap, 1), chunk - overlap)
    return [range(start, start + chunk) for start in starts]


def _enhancer_steps(refine: Any, ladder: Any, x: Any, trace: Any, cuts: list[range]) -> Found:
    for step in range(ladder.steps):
        yield f"x_in.{step}", ladder.scaled(x, step)
        blended = x.new_zeros(x.shape)
        for index, frames in enumerate(cuts):
            x0 = refine(x[0, :, frames.start : frames.stop], step).unsqueeze(0)
            yield f"x0_chunk.{step}.{index}", x0
            cut = int(trace["offsets"][step, index - 1]) if index else 0
            blended[:, :, frames.start + cut : frames.stop] = x0[:, :, cut:]
        yield f"x0.{step}", blended
        x0, before = trace.get(f"x0.{step}", blended), trace.get(f"x0.{step - 1}")
        x = ladder.step(step, x, x0, before, trace.get(f"brownian.{step}"))
    yield "result", x


def _front(
    engine: SimpleNamespace, refine: Any, ladder: Any, x: Any, trace: Any, cuts: list[range]
) -> Found:
    import torch

    blending = engine.blending
    random = blending.Randomness(
        lambda frame, step: trace[f"brownian.{step}"][0, :, frame],
        lambda chunk, step: int(trace["offsets"][step, chunk - 1]),
    )
    overlap = cuts[0].stop - cuts[1].start if len(cuts) > 1 else 1
    chunks = blending.Chunks(len(cuts[0]), overlap)
    front, done = blending.DiagonalFront(ladder.steps, chunks, random), []
    for index, frames in enumerate(cuts):
        last = index + 1 == len(cuts)
        end = frames.stop if last else frames.start + chunks.stride
        block = blending.Block(index, x[:, frames.start : end], last=last)
        done += front.push(block, refine, ladder.step)
    while front.busy:
        done += front.push(None, refine, ladder.step)
    yield "result", torch.cat([block.latents for block in done], dim=1).unsqueeze(0)


def run_schedule(
    engine: SimpleNamespace, folder: Path, trace: Any, loaded: dict[str, Any]
) -> Found:
    """Yield the ladders of a trace, by their number of steps."""
    import torch

    for name in {name.split(".")[0] for name in trace}:
        ladder = engine.enhancer_schedule.Ladder.of(int(name.removeprefix("steps")))
        yield f"{name}.sigmas", torch.tensor(ladder.sigmas)
        yield f"{name}.t", torch.tensor(ladder.times)
        yield f"{name}.t_before_rounding", torch.tensor(ladder.levels)


def run_mawe(engine: SimpleNamespace, folder: Path, trace: Any, loaded: dict[str, Any]) -> Found:
    """Yield the metric by the published code's definition, with given flow."""
    import torch

    pictures = trace["video_u8"].movedim(1, -1).contiguous().numpy()
    metric, moved, errors, motions, unknown = engine.mawe.CodeMAWE(), [], [], [], []
    for before, after, flow in zip(pictures, pictures[1:], trace["flows"], strict=False):
        flow = flow.movedim(0, -1).contiguous().numpy()
        ratio = metric.add(before, after, flow)
        splat, known = engine.mawe.splat(before, flow)
        motion = float(engine.flow.magnitude(flow).mean(dtype="float64"))
        moved.append(torch.from_numpy(splat).movedim(-1, 0).float())
        unknown.append(torch.from_numpy(~known).float())
        motions.append(motion)
        errors.append(ratio * engine.mawe.CODE_FACTOR * motion)
    yield "warped", torch.stack(moved)
    yield "unknown", torch.stack(unknown)
    yield "motion", torch.tensor(motions)
    yield "warp_error", torch.tensor(errors)
    yield "mawe", torch.tensor([metric.value])


RUNS: dict[str, Callable[..., Found]] = {
    "trace-unet": run_unet,
    "trace-apm": run_apm,
    "trace-loop": run_loop,
    "trace-enhancer": run_enhancer,
    "trace-enhancer-schedule": run_schedule,
    "trace-mawe": run_mawe,
}
