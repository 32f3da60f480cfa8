"""A ComfyUI server that is killed at a moment of a video, and started again."""

import re
import threading
import time
from contextlib import suppress

from comfy_servers import standin_base
from video_graphs import partial_root

# What a run is at when it is killed, in the order in which it comes to it.
STAGES = ("starting", "loading", "translating", "saving", "assembling", "Save Video")
SECONDS = 120


class KilledServer:
    """Starts one server again and again on the same folders, and kills it as a crash would.

    Args:
        folder: the server's, new.
        generator: a random.Random for the moments.

    Attributes:
        server: the ComfyServer.
        logs: what each of its processes has logged.
    """

    def __init__(self, folder, generator):
        base = standin_base(folder)
        from devtools.hosts import current_host
        from devtools.server import ComfyServer

        self._generator = generator
        self.server = ComfyServer(current_host(), base, cpu=True)
        self.output = self.server.base / "output"
        self.logs = []

    def kill_at(self, stage, graph, segments=0):
        """Start the server, queue the graph, and kill the process at a stage.

        Args:
            segments: for "translating" and "saving": not before so many are on the disk.
        """
        try:
            if stage == "starting":
                self._kill_while_starting()
            else:
                self._kill_at_work(stage, graph, segments)
        finally:
            self.server.stop()
            self.logs.append(self.server.log())

    def _kill_while_starting(self):
        from devtools.console import ToolError

        def start():
            with suppress(ToolError):
                self.server.start()

        thread = threading.Thread(target=start)
        thread.start()
        time.sleep(self._generator.uniform(0.5, 6))
        self.server.kill()
        thread.join()

    def _kill_at_work(self, stage, graph, segments):
        self.server.start()
        before = set(self._saved())
        self.server.client.queue_prompt(graph)
        if stage == "loading":
            time.sleep(self._generator.uniform(0, 2))
        else:
            reached = {
                "translating": lambda: True,
                "saving": lambda: self._partial("state_*.part"),
                "assembling": lambda: self._partial("result.*.part"),
                "Save Video": lambda: set(self._saved()) - before,
            }[stage]
            if segments:
                self._wait(lambda: len(self._partial("segment_*.mp4")) >= segments)
            self._wait(reached)
            time.sleep(self._generator.uniform(0, 0.5 if stage == "translating" else 0.01))
        self.server.kill()

    def _wait(self, condition):
        """Wait for a condition, or until the result is there and the stage was missed."""
        deadline = time.monotonic() + SECONDS
        while not condition() and not (self._partial("saved")):
            assert time.monotonic() < deadline, self.server.log()[-2000:]
            time.sleep(0.0005)

    def _partial(self, pattern):
        return list(partial_root(self.server).glob(f"*/{pattern}"))

    def _saved(self):
        return list(self.output.glob("v_*"))

    def newest_state(self):
        """Return the number of the newest saved state, or 0."""
        states = self._partial("state_*.safetensors")
        return max((int(path.stem.removeprefix("state_")) for path in states), default=0)

    def went_on_at(self):
        """Return the frame at which the last process went on, or None if it did not come to it."""
        found = re.search(r"going on at frame (\d+)", self.logs[-1])
        return int(found[1]) if found else None
