"""Prompts as the client queues and follows them, on a played ComfyUI."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from aiohttp import web

from folder_queue import client as client_module
from folder_queue.answers import Progress, PromptResult, QueueState, SavedFile
from folder_queue.client import ComfyClient
from folder_queue.errors import ConnectionLostError, PromptError, PromptRefusedError

GRAPH = {"7": {"class_type": "SaveVideo", "inputs": {}}}
SAVED = {"filename": "a_00001_.mp4", "subfolder": "sub", "type": "output"}
OUTPUTS = {"7": {"images": [SAVED, {**SAVED, "type": "temp"}], "animated": [True], "text": "x"}}


def say(kind, **data):
    return {"type": kind, "data": data}


def record(prompt_id, end="execution_success", **data):
    messages = [["execution_start", {}], [end, {"prompt_id": prompt_id, **data}]]
    return {"outputs": OUTPUTS, "status": {"messages": messages}}


class Comfy:
    """Says `script` to the websocket of each prompt that comes, with the prompt's id."""

    def __init__(self):
        self.script = [say("executing", node="7"), say("execution_success")]
        self.greets, self.hangs_up, self.forgets, self.refusal = True, False, False, None
        self.sockets, self.history, self.queued, self.posted = {}, {}, [], []

    async def listen(self, request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets[request.query["clientId"]] = socket
        if self.greets:
            await socket.send_json(say("status"))
        async for _ in socket:
            pass
        return socket

    async def prompt(self, request):
        body = await request.json()
        self.posted.append(("/prompt", body))
        if self.refusal is not None:
            status, answer = self.refusal
            return web.json_response({"prompt_id": body["prompt_id"], **answer}, status=status)
        socket, prompt_id = self.sockets[body["client_id"]], body["prompt_id"]
        self.queued.append(prompt_id)
        for message in self.script:
            await socket.send_bytes(b"a preview")
            await socket.send_json(say("progress", node="7", value=9, max=9, prompt_id="other"))
            await socket.send_json(say(message["type"], prompt_id=prompt_id, **message["data"]))
            if message["type"].startswith("execution_"):
                self.history[prompt_id] = record(prompt_id, message["type"], **message["data"])
                self.queued.remove(prompt_id)
                await socket.send_json(say("executing", node=None, prompt_id="other"))
                await socket.send_json(say("executing", node=None, prompt_id=prompt_id))
        if self.hangs_up:
            await socket.close()
        return web.json_response({"prompt_id": prompt_id, "node_errors": {}})

    async def state(self, request):
        if request.path == "/queue":
            running = [[0, each, {}] for each in self.queued]
            if self.forgets:
                self.queued = []
            return web.json_response({"queue_running": running, "queue_pending": []})
        wanted = request.match_info["prompt_id"]
        return web.json_response({wanted: self.history[wanted]} if wanted in self.history else {})

    async def note(self, request):
        self.posted.append((request.path, await request.json()))
        return web.Response()

    async def serve(self, ready):
        app = web.Application()
        app.router.add_get("/ws", self.listen)
        app.router.add_post("/prompt", self.prompt)
        app.router.add_get("/queue", self.state)
        app.router.add_get("/history/{prompt_id}", self.state)
        app.router.add_post("/{anything}", self.note)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
        self.loop, self.stop = asyncio.get_running_loop(), asyncio.Event()
        ready.set()
        await self.stop.wait()
        await runner.cleanup()


@pytest.fixture
def comfy(monkeypatch):
    monkeypatch.setattr(client_module, "SILENCE_SECONDS", 0.2)
    played, ready = Comfy(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(played.serve(ready)))
    thread.start()
    ready.wait()
    yield played
    played.loop.call_soon_threadsafe(played.stop.set)
    thread.join()


@pytest.fixture
def client(comfy, tmp_path):
    with ComfyClient(comfy.url, output_dir=tmp_path) as client:
        yield client


def test_a_prompt_is_followed_to_its_end(comfy, client, tmp_path):
    comfy.script.insert(1, say("progress", node="7", value=1, max=4))
    seen, nodes = [], []
    result = client.run(GRAPH, seen.append, nodes.append)
    # Previews and other prompts' messages are not ours.
    assert seen == [Progress("7", 1, 4)]
    assert nodes == ["7"] and result.executed == ("7",)
    assert result.outputs == OUTPUTS
    assert result.entries("7") == result.entries() == [SavedFile(**SAVED)]
    assert result.files() == [tmp_path / "sub" / "a_00001_.mp4"] and not result.entries("8")


def test_a_failure_is_raised_with_the_nodes_traceback(comfy, client):
    failure = {"node_id": "7", "node_type": "X", "exception_message": "no"}
    comfy.script = [say("execution_error", traceback=["line\n"], **failure)]
    with pytest.raises(PromptError, match=r"node 7 \(X\) failed: no") as caught:
        client.run(GRAPH)
    assert caught.value.traceback == "line\n"


def test_two_prompts_of_one_client_at_the_same_time(comfy, client):
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(client.run, [GRAPH] * 4))
    assert [result.executed for result in results] == [("7",)] * 4
    assert len(comfy.history) == 4


def test_a_known_prompt_is_taken_up(comfy, client):
    comfy.queued = ["mine"]
    messages = client.messages(GRAPH, "mine")
    assert next(messages) == say("waiting", prompt_id="mine")
    comfy.queued, comfy.history["mine"] = [], record("mine")
    # Its end went by unseen.
    *_, last = messages
    assert last == say("executing", prompt_id="mine", node=None)
    assert client.run(GRAPH, prompt_id="mine").executed == ()
    assert comfy.posted == []


def test_a_prompt_that_failed_unseen(comfy, client):
    comfy.history["mine"] = record("mine", "execution_interrupted", node_id="7", node_type="X")
    with pytest.raises(PromptError, match=r"interrupted in node 7 \(X\)"):
        client.run(GRAPH, prompt_id="mine")


@pytest.mark.parametrize("hangs_up", [True, False])
def test_a_prompt_that_is_lost(comfy, client, hangs_up):
    # The server has gone, or is back and knows nothing.
    comfy.script, comfy.hangs_up = [say("executing", node="7")], hangs_up
    comfy.forgets = True
    with pytest.raises(ConnectionLostError, match="closed" if hangs_up else "started anew"):
        client.run(GRAPH)


def test_a_server_that_does_not_greet(comfy, client):
    comfy.greets = False
    with pytest.raises(ConnectionLostError, match="silent"):
        client.run(GRAPH)


@pytest.mark.parametrize("status", [400, 200])
def test_a_refusal_names_the_node(comfy, client, status):
    errors = {"7": {"errors": [{"message": "not in list", "details": "file"}]}}
    comfy.refusal = status, {"error": {"message": "failed"}, "node_errors": errors}
    with pytest.raises(PromptRefusedError, match=r"node 7 \(SaveVideo\): not in list file"):
        client.run(GRAPH)
    # Taken in part, it is taken off again.
    prompt_id = comfy.posted[0][1]["prompt_id"]
    off = [("/queue", {"delete": [prompt_id]}), ("/interrupt", {"prompt_id": prompt_id})]
    assert comfy.posted[1:] == (off if status == 200 else [])


def test_what_the_server_says_becomes_values():
    answer = {"queue_running": [[3, "a", {}]], "queue_pending": [[4, "b", {}], [5, "c", {}]]}
    assert QueueState.parse(answer) == QueueState(("a",), ("b", "c"))
    result = PromptResult.parse(record("a"))
    assert result.ending == say("execution_success", prompt_id="a")
    with pytest.raises(ValueError, match="where this server saves is not known"):
        result.files()
