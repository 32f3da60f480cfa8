"""The session's thread: usable under another event loop, closed in every case, never in the way."""

import _thread
import asyncio
import gc
import socket
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest

from folder_queue.connection import Connection
from folder_queue.errors import ConnectionLostError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def silent():
    """Address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def ended(thread):
    thread.join(5)
    return not thread.is_alive()


def test_works_where_another_loop_runs():
    async def main():
        with Connection("http://127.0.0.1:9") as connection:
            assert not connection.is_up()

    asyncio.run(main())


def test_closed_is_closed():
    with Connection("http://127.0.0.1:9") as connection:
        with pytest.raises(ConnectionLostError, match="no answer from"):
            connection.get("/queue")
    assert not connection._thread.is_alive() and connection._session.closed
    connection.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeError, match="is closed"):
            connection.get("/queue")
        with pytest.raises(RuntimeError, match="is closed"):
            connection.wait_until_up(60)


def test_forgotten_is_closed():
    connection = Connection("http://127.0.0.1:9")
    assert not connection.is_up()
    thread, session = connection._thread, connection._session
    assert thread.is_alive()
    del connection
    gc.collect()
    assert ended(thread) and session.closed


def test_closing_ends_what_waits(silent):
    connection = Connection(silent)
    closing = threading.Timer(0.3, connection.close)
    closing.start()
    started = time.monotonic()
    with pytest.raises(ConnectionLostError):
        connection.get("/queue")
    assert time.monotonic() - started < 5 and ended(connection._thread)
    closing.join()


def test_ctrl_c_ends_a_wait(silent):
    """As on Windows: `interrupt_main` does not wake the waiting thread."""
    with Connection(silent) as connection:
        interrupting = threading.Timer(0.3, _thread.interrupt_main)
        interrupting.start()
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            connection.get("/queue")
        assert time.monotonic() - started < 5
        interrupting.join()
        # What was waited for has been given up.
        tasks = asyncio.run_coroutine_threadsafe(waiting_tasks(), connection._loop).result(5)
        assert tasks == 0


async def waiting_tasks():
    await asyncio.sleep(0.2)
    return len(asyncio.all_tasks()) - 2  # this one, and the one that holds the session


LEFT_OPEN = """
import sys, threading
from folder_queue.client import ComfyClient
client = ComfyClient(sys.argv[1])
heard = client.listen("/ws", 60.0)
threading.Thread(target=next, args=[heard], daemon=True).start()
assert not ComfyClient("http://localhost:9").is_up()
"""


def test_the_interpreter_exits_without_a_close(silent):
    command = [sys.executable, "-W", "error", "-X", "dev", "-c", LEFT_OPEN, silent]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
