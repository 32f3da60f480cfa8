"""A ComfyUI server process: started on a free loopback port, always stopped at the end.

    with ComfyServer(current_host(), prepare_workspace(tmp_path, [standins])) as server:
        result = server.client.run(api_graph)

Runs inside the venv or outside it; the client needs aiohttp, which is in the venv.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from devtools.console import ToolError
from devtools.hosts import Host
from devtools.workspace import extra_paths_file

if TYPE_CHECKING:
    from folder_queue.client import ComfyClient

START_SECONDS = 180.0
STOP_SECONDS = 10.0
LOOPBACK = "127.0.0.1"


def choose_port(wanted: int | None = None) -> int:
    """Return the `wanted` loopback port, or any free one. Raises ToolError when it is taken."""
    with socket.socket() as probe:
        if os.name != "nt":
            # The server sets this option, too: it can bind a port in TIME_WAIT.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, wanted or 0))
        except (OSError, OverflowError) as error:
            raise ToolError(
                f"port {wanted} is taken or not allowed; leave --port out to get a free one"
            ) from error
        return int(probe.getsockname()[1])


def has_accelerator(python: Path) -> bool:
    """Return whether this interpreter's torch finds a GPU of any kind (takes a few seconds)."""
    code = "import sys, torch; sys.exit(not torch.accelerator.is_available())"
    return subprocess.call([str(python), "-c", code], stderr=subprocess.DEVNULL) == 0


class ComfyServer:
    """One ComfyUI process, as a context manager.

    `base` is its base directory (see `prepare_workspace`). `port` None means any free one.
    `log_path` defaults to `base`/server.log. `cpu` None means: `--cpu` only without a GPU.
    `arguments` are passed to main.py.
    """

    def __init__(
        self,
        host: Host,
        base: Path,
        *,
        port: int | None = None,
        log_path: Path | None = None,
        cpu: bool | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        """Choose the port; start nothing yet. Raises ToolError when the given port is taken."""
        self.host = host
        self.base = base
        self.port = choose_port(port)
        self.log_path = log_path or base / "server.log"
        self._cpu = cpu
        self._arguments = list(arguments)
        self._process: subprocess.Popen[bytes] | None = None
        self._client: ComfyClient | None = None

    @property
    def url(self) -> str:
        """The address of the page and the API, without a slash at the end."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def client(self) -> ComfyClient:
        """The one client of this server; `stop` closes it."""
        from folder_queue.client import ComfyClient

        if self._client is None:
            self._client = ComfyClient(self.url, output_dir=self.base / "output")
        return self._client

    @property
    def process_id(self) -> int:
        """The running server's process id. Raises RuntimeError when there is none."""
        if self._process is None:
            raise RuntimeError("the server is not running")
        return self._process.pid

    def kill(self) -> None:
        """End the server as a crash would: at once, without any cleanup."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def log(self) -> str:
        """Return the server's output so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def __enter__(self) -> ComfyServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process and wait until it answers.

        Raises ToolError with the last line of the log when it exits or does not answer in time.
        """
        cpu = not has_accelerator(self.host.python) if self._cpu is None else self._cpu
        with open(self.log_path, "wb") as log:
            self._process = subprocess.Popen(
                self._command(cpu),
                cwd=self.host.source,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # In its own group: only we receive Ctrl-C, and we stop it and its children.
                **_new_group(),
            )
        atexit.register(self.stop)
        try:
            self._wait_until_up()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the process and its children; safe to call twice."""
        process, self._process = self._process, None
        client, self._client = self._client, None
        atexit.unregister(self.stop)
        if client is not None:
            client.close()
        if process is None:
            return
        _signal_group(process, force=False)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            _signal_group(process, force=True)
            process.wait()

    def wait(self) -> int:
        """Wait until the process ends by itself and return its exit status."""
        return self._process.wait() if self._process else 0

    def _command(self, cpu: bool) -> list[str]:
        command = [str(self.host.python), "-u", "main.py", "--listen", LOOPBACK]
        command += ["--port", str(self.port), "--base-directory", str(self.base)]
        # By default the database lies in the source tree, which may be a user's own ComfyUI.
        database = (self.base / "user" / "comfyui.db").resolve().as_posix()
        command += ["--database-url", f"sqlite:///{database}"]
        command += ["--disable-api-nodes", "--disable-auto-launch"]
        if extra_paths_file(self.base).is_file():
            command += ["--extra-model-paths-config", str(extra_paths_file(self.base))]
        return [*command, *(["--cpu"] if cpu else []), *self._arguments]

    def _environment(self) -> dict[str, str]:
        # The checkout must not be importable here: users' servers have it in custom_nodes only.
        env = {**os.environ, "PYTHONPATH": self.host.python_path()}
        # All models are on the disk: a missing one fails at once rather than wait for a network.
        return {**env, "HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"}

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                lines = self.log().strip().splitlines() or ["no output"]
                raise ToolError(f"ComfyUI did not start: {lines[-1]} (log: {self.log_path})")
            try:
                with urllib.request.urlopen(f"{self.url}/system_stats", timeout=5):
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.25)
        raise ToolError(f"ComfyUI did not answer within {START_SECONDS:.0f} s ({self.log_path})")


def _new_group() -> dict[str, Any]:
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def _signal_group(process: subprocess.Popen[bytes], *, force: bool) -> None:
    if process.poll() is not None:
        return
    if os.name == "nt":
        command = ["taskkill", "/T", "/F", "/PID", str(process.pid)]
        subprocess.call(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return
    try:
        os.killpg(process.pid, signal.SIGKILL if force else signal.SIGTERM)
    except ProcessLookupError:
        return
