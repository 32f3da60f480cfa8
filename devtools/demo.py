"""The demo: translate a video through a real ComfyUI queue. Run by `python3 dev.py demo`."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

from tqdm import tqdm

from devtools import media, models
from devtools.console import ToolError, run_main, say
from devtools.hosts import Host, current_host
from devtools.paths import REPO, cache_dir
from devtools.sample_graph import with_sample_model
from devtools.server import ComfyServer, has_accelerator
from devtools.workspace import cache_models, default_workspace, prepare_workspace
from folder_queue.answers import Progress, PromptResult
from folder_queue.client import ComfyClient, Graph
from folder_queue.errors import PromptError

WORKFLOW = REPO / "workflows" / "api" / "video_to_video_depth.json"
OUTPUT = REPO / "output"
# The clip's name in the server's input folder.
CLIP_NAME = "live2diff-demo"
SAMPLER = "Live2DiffStreamSampler"
# Labels of the progress bar for the nodes that take long.
WORK = {
    "Live2DiffEstimateDepth": "Estimating depth",
    SAMPLER: "Translating",
    "VAEDecode": "Decoding",
}
# Longest side of the translated pictures in pixels; a CPU still takes minutes.
LONGEST_SIDE, LONGEST_SIDE_CPU, LONGEST_SIDE_SAMPLE = 512, 192, 256
# Node class -> (input, key of models.WANTED).
MODEL_INPUTS = {
    "CheckpointLoaderSimple": ("ckpt_name", "checkpoint"),
    "LoraLoader": ("lora_name", "lora"),
    "LoraLoaderModelOnly": ("lora_name", "lora"),
    "Live2DiffLoadMotionModule": ("motion_module", "motion_module"),
    "Live2DiffLoadDepthModel": ("depth_model", "depth_model"),
}


def main() -> int:
    """Run the demo with the options on the command line and return its exit status."""
    options = parse_options(sys.argv[1:])
    started = time.monotonic()
    host = current_host()
    clip = sample_or_given(options.input)
    workspace = default_workspace()
    chosen = choose(options, host, workspace)
    prepare_workspace(workspace, chosen.folders)
    video = f"{CLIP_NAME}{clip.suffix}"
    shutil.copyfile(clip, workspace / "input" / video)
    graph = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    if chosen.sample:
        graph = with_sample_model(graph)
    patch_graph(graph, video, chosen.names)
    if options.prompt is not None:
        set_prompt(graph, options.prompt)
    cpu = not has_accelerator(host.python)
    longest = LONGEST_SIDE_CPU if cpu else LONGEST_SIDE
    longest = LONGEST_SIDE_SAMPLE if chosen.sample else longest
    size = working_size(media.frame_size(clip), longest)
    set_size(graph, size)
    say(f"Starting ComfyUI {host.version} on the {'CPU' if cpu else 'GPU'} ...")
    with ComfyServer(host, workspace, port=options.port, cpu=cpu) as server:
        say(f"Queueing {WORKFLOW.name} at {server.url}, {size[0]}x{size[1]} pixels")
        say(f"Log: {server.log_path}")
        translated = translate(server.client, graph, media.count_frames(clip))
        write_results(clip, translated)
        say(f"Done in {time.monotonic() - started:.0f} s.")
        if options.keep_server:
            say(f"ComfyUI keeps running at {server.url}; Ctrl-C stops it.")
            server.wait()
    return 0


def parse_options(arguments: list[str]) -> argparse.Namespace:
    """Parse the options that dev.py passes on."""
    parser = argparse.ArgumentParser(prog="dev.py demo")
    for name in ("--input", "--prompt", "--checkpoint", "--motion-module", "--depth-model"):
        parser.add_argument(name)
    parser.add_argument("--port", type=int)
    parser.add_argument("--keep-server", action="store_true")
    return parser.parse_args(arguments)


def sample_or_given(path: str | None) -> Path:
    """Return the user's video, or write the sample clip and return it."""
    if path is not None:
        return Path(path)
    clip = cache_dir() / "sample.mp4"
    media.write_sample_clip(clip)
    return clip


def choose(options: argparse.Namespace, host: Host, workspace: Path) -> models.Models:
    """Choose the models and tell the user when they are not real ones."""
    folders = [folder for folder in (host.models, cache_models()) if folder is not None]
    keys = ("checkpoint", "motion_module", "depth_model")
    wanted = {key: getattr(options, key) for key in keys}
    chosen = models.choose_models(folders, wanted, workspace / "chosen_models")
    models.announce(chosen, folders[0])
    return chosen


def patch_graph(graph: Graph, video: str, names: dict[str, str]) -> Graph:
    """Put the video's and the models' names into the workflow's nodes, by class."""
    for node in graph.values():
        if node["class_type"] == "LoadVideo":
            node["inputs"]["file"] = video
        elif node["class_type"] in MODEL_INPUTS:
            name, key = MODEL_INPUTS[node["class_type"]]
            node["inputs"][name] = names[key]
    return graph


def set_prompt(graph: Graph, prompt: str) -> None:
    """Put `prompt` in place of the workflow's positive prompt."""
    for node in graph.values():
        if node["class_type"] == SAMPLER:
            graph[node["inputs"]["positive"][0]]["inputs"]["text"] = prompt


def working_size(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """Scale (width, height) to multiples of 8 pixels, with no side longer than `longest`."""
    scale = min(1.0, longest / max(size))
    width, height = (max(8, round(side * scale / 8) * 8) for side in size)
    return width, height


def set_size(graph: Graph, size: tuple[int, int]) -> None:
    """Make the workflow scale the frames to `size` instead of the size it was saved with."""
    for node in graph.values():
        if node["class_type"] == "ImageScale":
            node["inputs"]["width"], node["inputs"]["height"] = size


def translate(client: ComfyClient, graph: Graph, frames: int) -> Path:
    """Run the graph with a progress bar over its frames and return the path of the saved video."""
    with tqdm(total=frames, unit="frame", desc="Loading", dynamic_ncols=True) as bar:

        def show(progress: Progress) -> None:
            if graph[progress.node_id]["class_type"] == SAMPLER:
                bar.update(progress.value - bar.n)

        def name_the_work(node_id: str) -> None:
            work = WORK.get(graph[node_id]["class_type"])
            if work is not None:
                bar.set_description(work)

        try:
            result: PromptResult = client.run(graph, show, name_the_work)
        except PromptError as error:
            raise ToolError(str(error)) from error
    videos = [path for path in result.files() if path.suffix == ".mp4"]
    if not videos:
        raise ToolError("the workflow saved no video")
    return videos[-1]


def write_results(clip: Path, translated: Path) -> None:
    """Copy the video into output/, add two comparisons, print the paths, check the frame count."""
    OUTPUT.mkdir(exist_ok=True)
    video, beside, sheet = (
        OUTPUT / f"{clip.stem}-{name}"
        for name in ("translated.mp4", "side-by-side.mp4", "contact-sheet.png")
    )
    shutil.copyfile(translated, video)
    media.write_side_by_side(beside, clip, video)
    media.write_contact_sheet(sheet, clip, video)
    for path in (video, beside, sheet):
        say(str(path))
    frames_in, frames_out = media.count_frames(clip), media.count_frames(video)
    if frames_in != frames_out:
        raise ToolError(f"{frames_in} frames went in, but {frames_out} came out")
    say(f"{frames_in} frames in, {frames_out} frames out.")


if __name__ == "__main__":
    sys.exit(run_main(main))
