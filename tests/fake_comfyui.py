"""A scripted ComfyUI: speaks enough of the protocol to be driven, and misbehaves on demand.

``main.py`` of a :class:`FakeTree` runs :func:`main`, so the connector starts it as it starts a real
ComfyUI. What it does wrong is read from ``behaviour.json`` in the tree, anew at every step, so that a test can change
it while the server runs. Keys, all optional:

start           "exit" (prints, exits 1), "garbage" (prints binary, exits 3), "silent" (never listens),
                "lost_port" (once: complains of the port and exits), "needs_cpu" (exits unless --cpu), "mute" (accepts
                connections, never answers), "errors" (answers everything with status 500), "nonsense" (answers with
                valid JSON of the wrong shape)
start_delay     seconds before it listens
max_body        bytes that a request may have, from the start on (1 MiB)
flood           bytes of output without a line end, before it listens
leave_child     a program of its own session, which holds the server's output open
ignore_signals  SIGINT and SIGTERM change nothing
fail            {path prefix: [status, how often]}: answers of that status
delay           {path prefix: seconds} before the answer
token           everything is answered with status 401 unless it carries this bearer token
lose_answer     {path prefix: how often}: the request is carried out, and the connection cut instead of answered
lie             {path prefix: body}: status 200 and this text as JSON; PROMPT_ID in it stands for the path's last part
close           {path prefix: how often}: the connection is cut in the middle of the answer
websocket       "refuse" (status 403), "hang" (no handshake), "silent" (no message), "garbage" (what nobody can read
                before each message)
cut_after       a message type: all sockets are cut once, after the first message of that type; "preview" is the binary
                one, "done" the "executing" without a node
own_ids         prompts get ids of the server's choice, as before clients could choose them
history_delay   seconds between a prompt's end and its entry in the history
history         "lost" (never an entry), "empty" (success without outputs)
accept          "die" (SIGKILL to itself after accepting a prompt), "stop" (SIGSTOP), "partial" (status 200 with
                node_errors)
frontend        "never" (the page is never ready), "hang" (the export never returns), "refuse" (loading returns
                false), "throw", "drop" (loads one node less), "dialog" (alert at start), "lie" (exports null
                nodes), "nothing" (exports nothing)
scripts         {path: version} of packs' extensions, beside the frontend's own; HEAD tells the version as ETag
script_status   the status of those answers

Node types: Echo (``value``; gives it back as ui text), Sleep (``seconds``; can be interrupted), Stubborn (``seconds``;
cannot), Steps (``value``; reports progress and shows a preview), Fail (raises ``message``).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# Flags that the tree's cli_args.py mentions, as a recent ComfyUI does.
FLAGS = ("--port", "--listen", "--disable-auto-launch", "--temp-directory", "--database-url", "--cache-lru", "--cpu")
NODES = {
    "Echo": {"value": ["STRING", {}]},
    "Sleep": {"seconds": ["FLOAT", {}]},
    "Stubborn": {"seconds": ["FLOAT", {}]},
    "Steps": {"value": ["STRING", {}]},
    "Fail": {"message": ["STRING", {}]},
}


class FakeTree:
    """A folder that looks like a ComfyUI checkout and starts this program."""

    def __init__(self, path: Path):
        self.path = path
        (path / "comfy").mkdir(parents=True)
        (path / "comfy" / "cli_args.py").write_text("\n".join(f'add("{flag}")' for flag in FLAGS))
        (path / "main.py").write_text(
            f"import runpy\nrunpy.run_path({str(Path(__file__).resolve())!r})['main']({str(path)!r})\n"
        )
        self.behave()

    def behave(self, **behaviour: Any) -> None:
        """Replace the behaviour; without arguments it is a good server."""
        young = self.path / "behaviour.young"
        young.write_text(json.dumps(behaviour))
        os.replace(young, self.path / "behaviour.json")

    def starts(self) -> list[list[str]]:
        """The command line of every start so far."""
        file = self.path / "starts.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def requests(self, prefix: str) -> list[str]:
        """``METHOD /path body`` of the requests to paths with this prefix so far."""
        file = self.path / "requests.log"
        lines = file.read_text().splitlines() if file.exists() else []
        return [line for line in lines if line.split(" ")[1].startswith(prefix)]


# What a client may get from a peer that has lost its mind, or from a newer one.
GARBAGE = [
    "", "null", "[]", "{}", "{", "[" * 100_000, '{"type": 5}', '{"type": "executing", "data": null}',
    '{"type": "executing", "data": {"node": {}, "prompt_id": []}}', '{"type": "news", "data": {"prompt_id": 1}}',
    b"", b"\0", b"\0\0\0\1", b"\0\0\0\4\xff\xff\xff\xff{}", b"\0\0\0\4\0\0\0\2[]", b"\xff" * 100,
]  # fmt: skip
# A preview as the server sends it to clients that do not ask for metadata: event 1, format 1 (JPEG), the image.
PREVIEW = b"\0\0\0\1\0\0\0\1" + b"a picture"


class Interrupted(Exception):
    """The running prompt was interrupted."""


class Server:
    """The protocol. One prompt runs at a time."""

    def __init__(self, tree: Path, argv: list[str]):
        self.tree = tree
        self.argv = argv
        self.sockets: dict[str, list[Any]] = {}
        self.pending: list[tuple[float, str, Any, Any, list[str]]] = []
        self.running: tuple[float, str, Any, Any, list[str]] | None = None
        self.history: dict[str, Any] = {}
        self.interrupted = asyncio.Event()
        self.work = asyncio.Event()
        self.number = 0
        self.cut_after = ""
        self.failures: dict[str, int] = {}
        self.closed: dict[str, int] = {}

    def behaviour(self, key: str, default: Any = None) -> Any:
        return json.loads((self.tree / "behaviour.json").read_text()).get(key, default)

    def note(self, request: str) -> None:
        with open(self.tree / "requests.log", "a") as log:
            log.write(request.replace("\n", " ").strip() + "\n")

    # ---- messages ----

    async def send(self, client: str | None, kind: str, **data: Any) -> None:
        """Send a message; without *data* but with bytes as "preview" a binary one."""
        if self.behaviour("websocket") == "silent":
            return
        garbage = GARBAGE if self.behaviour("websocket") == "garbage" else []
        for name, sockets in list(self.sockets.items()):
            if client is None or name == client:
                for socket in list(sockets):
                    with contextlib.suppress(ConnectionError, RuntimeError):
                        for message in [*garbage, data.get("preview") or json.dumps({"type": kind, "data": data})]:
                            await (socket.send_bytes if isinstance(message, bytes) else socket.send_str)(message)
        cut_after = self.behaviour("cut_after", "")
        is_it = cut_after == ("done" if kind == "executing" and data["node"] is None else kind)
        if is_it and cut_after != self.cut_after:
            self.cut_after = cut_after
            for socket in [s for sockets in self.sockets.values() for s in sockets]:
                socket._req.transport.abort()
            await asyncio.sleep(0)

    # ---- execution ----

    async def run_forever(self) -> None:
        while True:
            while not self.pending:
                self.work.clear()
                await self.work.wait()
            self.running = self.pending.pop(0)
            self.interrupted.clear()
            await self.run(self.running)

    async def run(self, item: tuple[float, str, Any, Any, list[str]]) -> None:
        _, prompt_id, prompt, extra, _ = item
        client = extra.get("client_id")
        messages: list[Any] = [["execution_start", {"prompt_id": prompt_id}]]
        outputs: dict[str, Any] = {}
        status = "success"
        await self.send(None, "status", status={"exec_info": {"queue_remaining": 1}})
        await self.send(client, "execution_start", prompt_id=prompt_id)
        await self.send(client, "execution_cached", nodes=[], prompt_id=prompt_id)
        for node_id, node in prompt.items():
            await self.send(client, "executing", node=node_id, display_node=node_id, prompt_id=prompt_id)
            where = {"prompt_id": prompt_id, "node_id": node_id, "node_type": node["class_type"], "executed": []}
            try:
                if node["class_type"] == "Steps":
                    for value in range(1, 3):
                        now = {"value": value, "max": 2, "prompt_id": prompt_id}
                        await self.send(client, "progress_state", prompt_id=prompt_id, nodes={node_id: now})
                        await self.send(client, "progress", node=node_id, **now)
                        await self.send(client, "preview", preview=PREVIEW)
                text = await self.execute(node)
            except Interrupted:
                status = "error"
                messages.append(["execution_interrupted", where])
                await self.send(client, "execution_interrupted", **where)
                break
            except ValueError as e:
                status = "error"
                trace = ['  File "nodes.py", line 7, in fail\n', "    raise ValueError(message)\n"]
                data = {**where, "exception_message": f"{e}\n", "exception_type": "ValueError", "traceback": trace}
                messages.append(["execution_error", data])
                await self.send(client, "execution_error", **data)
                break
            outputs[node_id] = {"text": [text]}
            await self.send(
                client, "executed", node=node_id, display_node=node_id, output=outputs[node_id], prompt_id=prompt_id
            )
        else:
            messages.append(["execution_success", {"prompt_id": prompt_id}])
            await self.send(client, "execution_success", prompt_id=prompt_id)
        await asyncio.sleep(self.behaviour("history_delay", 0))
        kind = self.behaviour("history")
        if kind != "lost":
            self.history[prompt_id] = {
                "prompt": list(item),
                "outputs": {} if kind == "empty" else outputs,
                "status": {"status_str": status, "completed": status == "success", "messages": messages},
                "meta": {},
            }
        self.running = None
        await self.send(client, "executing", node=None, prompt_id=prompt_id)

    async def execute(self, node: Any) -> Any:
        inputs = node["inputs"]
        if node["class_type"] == "Fail":
            raise ValueError(inputs["message"])
        if node["class_type"] == "Stubborn":
            await asyncio.sleep(inputs["seconds"])
        if node["class_type"] == "Sleep":
            try:
                await asyncio.wait_for(self.interrupted.wait(), inputs["seconds"])
            except asyncio.TimeoutError:
                return inputs["seconds"]
            raise Interrupted
        return inputs.get("value", inputs.get("seconds"))

    # ---- routes ----

    def application(self) -> Any:
        from aiohttp import web

        @web.middleware
        async def misbehave(request: Any, handler: Any) -> Any:
            body = (
                "" if request.content_type.startswith("multipart") else (await request.read()).decode(errors="replace")
            )
            self.note(f"{request.method} {request.path} {body}")
            start = self.behaviour("start")
            if start == "mute":
                await asyncio.sleep(3600)
            if start == "errors":
                return web.Response(status=500, text="500 Internal Server Error\n\nServer got itself in trouble")
            if start == "nonsense":
                return web.json_response({"system": ["not", "an", "object"]})
            for prefix, times in self.behaviour("close", {}).items():
                if request.path.startswith(prefix) and self.closed.get(prefix, 0) < times:
                    self.closed[prefix] = self.closed.get(prefix, 0) + 1
                    response = web.StreamResponse(headers={"Content-Length": "1000"})
                    response.content_type = "application/json"
                    await response.prepare(request)
                    await response.write(b'{"half": "an ans')
                    request.transport.abort()
                    return response
            for prefix, body in self.behaviour("lie", {}).items():
                if request.path.startswith(prefix):
                    body = body.replace("PROMPT_ID", request.path.rpartition("/")[2])
                    return web.Response(text=body, content_type="application/json")
            token = self.behaviour("token")
            if token and request.headers.get("Authorization") != f"Bearer {token}":
                return web.Response(status=401)
            for prefix, times in self.behaviour("lose_answer", {}).items():
                if request.path.startswith(prefix) and self.failures.get(f"lost {prefix}", 0) < times:
                    self.failures[f"lost {prefix}"] = self.failures.get(f"lost {prefix}", 0) + 1
                    await handler(request)
                    request.transport.abort()
            for prefix, seconds in self.behaviour("delay", {}).items():
                if request.path.startswith(prefix):
                    await asyncio.sleep(seconds)
            for prefix, (status, times) in self.behaviour("fail", {}).items():
                if request.path.startswith(prefix) and self.failures.get(prefix, 0) < times:
                    self.failures[prefix] = self.failures.get(prefix, 0) + 1
                    return web.Response(status=status, text="500 Internal Server Error")
            return await handler(request)

        app = web.Application(middlewares=[misbehave], client_max_size=self.behaviour("max_body", 1 << 20))
        app.router.add_get("/ws", self.websocket)
        for prefix in ("", "/api"):
            app.router.add_get(f"{prefix}/system_stats", self.system_stats)
            app.router.add_get(f"{prefix}/object_info", self.object_info)
            app.router.add_get(f"{prefix}/extensions", self.extensions)
            app.router.add_get(f"{prefix}/queue", self.queue)
            app.router.add_post(f"{prefix}/queue", self.change_queue)
            app.router.add_get(prefix + "/history/{id}", self.get_history)
            app.router.add_get(prefix + "/history", self.get_history)
            app.router.add_post(f"{prefix}/history", self.change_history)
            app.router.add_post(f"{prefix}/prompt", self.prompt)
            app.router.add_post(f"{prefix}/interrupt", self.interrupt)
            app.router.add_post(f"{prefix}/free", self.free)
            app.router.add_post(f"{prefix}/upload/image", self.upload)
        app.router.add_get("/", self.index)
        app.router.add_get("/extensions/{path:.*}", self.script)
        return app

    async def websocket(self, request: Any) -> Any:
        from aiohttp import web

        kind = self.behaviour("websocket")
        if kind == "refuse":
            return web.Response(status=403)
        if kind == "hang":
            await asyncio.sleep(3600)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        mine = self.sockets.setdefault(request.query.get("clientId", ""), [])
        mine.append(socket)
        await self.send(request.query.get("clientId", ""), "status", status={}, sid=request.query.get("clientId"))
        try:
            async for _ in socket:
                pass
        finally:
            mine.remove(socket)
        return socket

    async def system_stats(self, request: Any) -> Any:
        from aiohttp import web

        return web.json_response({"system": {"comfyui_version": "0.0.fake", "argv": self.argv}, "devices": []})

    async def object_info(self, request: Any) -> Any:
        from aiohttp import web

        definitions = {
            name: {"input": {"required": inputs}, "output": [], "output_node": True, "name": name}
            for name, inputs in NODES.items()
        }
        return web.json_response(definitions)

    async def extensions(self, request: Any) -> Any:
        from aiohttp import web

        return web.json_response(["/extensions/core/fake.js", *self.behaviour("scripts", {})])

    async def script(self, request: Any) -> Any:
        from aiohttp import web

        version = self.behaviour("scripts", {}).get(request.path)
        status = 404 if version is None else self.behaviour("script_status", 200)
        return web.Response(status=status, text="//", headers={"ETag": f'"{version}"'})

    async def queue(self, request: Any) -> Any:
        from aiohttp import web

        running = [list(self.running)] if self.running else []
        return web.json_response({"queue_running": running, "queue_pending": [list(p) for p in self.pending]})

    async def change_queue(self, request: Any) -> Any:
        from aiohttp import web

        gone = (await request.json()).get("delete", [])
        self.pending = [item for item in self.pending if item[1] not in gone]
        return web.Response()

    async def get_history(self, request: Any) -> Any:
        from aiohttp import web

        wanted = request.match_info.get("id")
        return web.json_response({k: v for k, v in self.history.items() if wanted in (None, k)})

    async def change_history(self, request: Any) -> Any:
        from aiohttp import web

        for prompt_id in (await request.json()).get("delete", []):
            self.history.pop(prompt_id, None)
        return web.Response()

    async def prompt(self, request: Any) -> Any:
        from aiohttp import web

        body = await request.json()
        if self.behaviour("own_ids"):
            body["prompt_id"] = f"own-{self.number}"
        accept = self.behaviour("accept")
        errors = {
            node_id: {
                "class_type": node.get("class_type"),
                "dependent_outputs": [],
                "errors": [{"type": "required_input_missing", "message": "Required input is missing", "details": name}],
            }
            for node_id, node in body["prompt"].items()
            for name in NODES.get(node.get("class_type"), {})
            if name not in node["inputs"]
        }
        if errors and accept != "partial":
            error = {"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation"}
            return web.json_response({"error": error, "node_errors": errors}, status=400)
        self.number += 1
        extra = {**body.get("extra_data", {}), "client_id": body.get("client_id")}
        valid = {k: v for k, v in body["prompt"].items() if k not in errors}
        self.pending.append((self.number, body["prompt_id"], valid, extra, list(valid)))
        self.work.set()
        if accept == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if accept == "stop":
            asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), signal.SIGSTOP)
        return web.json_response({"prompt_id": body["prompt_id"], "number": self.number, "node_errors": errors})

    async def interrupt(self, request: Any) -> Any:
        from aiohttp import web

        wanted = json.loads(await request.read() or b"{}").get("prompt_id")
        if self.running is not None and wanted in (None, self.running[1]):
            self.interrupted.set()
        return web.Response()

    async def free(self, request: Any) -> Any:
        from aiohttp import web

        return web.Response()

    async def upload(self, request: Any) -> Any:
        """Keep nothing; larger than aiohttp's client_max_size (1 MiB) is status 413, as in ComfyUI above 100 MB."""
        from aiohttp import web

        form = await request.post()
        image = form["image"]
        self.note(f"UPLOADED /uploaded {form['type']} {form['subfolder']} {image.filename} {form['overwrite']}")
        answer = {"name": f"renamed {image.filename}", "subfolder": form["subfolder"], "type": form["type"]}
        return web.json_response(answer)

    async def index(self, request: Any) -> Any:
        from aiohttp import web

        known = json.dumps([*NODES, *(f"Type{i}" for i in range(60))])
        page = PAGE.replace("KNOWN", known).replace("MODE", json.dumps(self.behaviour("frontend", "")))
        return web.Response(text=page, content_type="text/html")


# The parts of the frontend's interface that a conversion uses. Widget values of these workflows are objects
# {input name: value}.
PAGE = """<!doctype html><title>ComfyUI</title><script>
const mode = MODE, known = KNOWN;
if (mode === "dialog") { alert("What is new"); }
let loaded = {nodes: []};
const graph = {get _nodes() { return mode === "drop" ? loaded.nodes.slice(1) : loaded.nodes; }};
function start() {
  window.LiteGraph = {registered_node_types: Object.fromEntries(known.map(k => [k, 1]))};
  window.app = {
    graph, canvas: {}, extensionManager: {workflow: {activeWorkflow: {}}},
    async loadGraphData(workflow) {
      if (mode === "refuse") return false;
      if (mode === "throw") throw new TypeError("this workflow is beyond me");
      loaded = structuredClone(workflow);
    },
    async graphToPrompt() {
      if (mode === "hang") await new Promise(() => {});
      if (mode === "nothing") return {};
      if (mode === "lie") return {output: {"1": null}};
      const output = {};
      for (const n of loaded.nodes) {
        output[n.id] = {inputs: n.widgets_values ?? {}, _meta: {title: n.title ?? n.type}};
        if (known.includes(n.type)) output[n.id].class_type = n.type;
      }
      return {output};
    },
  };
}
if (mode !== "never") setTimeout(start, 20);
</script>"""


def main(folder: str) -> None:
    """Start as ComfyUI does: print, listen, serve. *folder* is the tree."""
    tree, argv = Path(folder), sys.argv
    with open(tree / "starts.jsonl", "a") as log:
        log.write(json.dumps(argv) + "\n")
    server_behaviour = json.loads((tree / "behaviour.json").read_text())
    start = server_behaviour.get("start")
    print("Fake ComfyUI starts", flush=True)
    if server_behaviour.get("leave_child"):
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(20)", str(tree)], start_new_session=True)
    if server_behaviour.get("flood"):
        sys.stdout.buffer.write(b"\xff\x00x" * (server_behaviour["flood"] // 3))
        sys.stdout.flush()
    if server_behaviour.get("ignore_signals"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if start == "exit":
        print("ImportError: No module named 'frobnicate'", flush=True)
        sys.exit(1)
    if start == "garbage":
        sys.stdout.buffer.write(bytes(range(256)) * 20 + b"\r\x1b[31mdead\n")
        sys.exit(3)
    if start == "needs_cpu" and "--cpu" not in argv:
        print("AssertionError: Torch not compiled with CUDA enabled", flush=True)
        sys.exit(1)
    lost = tree / "lost_port"
    if start == "lost_port" and not lost.exists():
        lost.touch()
        print("OSError: [Errno 98] error while attempting to bind: address already in use", flush=True)
        sys.exit(1)
    if start == "silent":
        time.sleep(3600)
    time.sleep(server_behaviour.get("start_delay", 0))
    asyncio.run(serve(tree, argv))


async def serve(tree: Path, argv: list[str]) -> None:
    """Listen on --port and execute prompts until the process is ended."""
    from aiohttp import web

    server = Server(tree, argv)
    runner = web.AppRunner(server.application(), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", int(argv[argv.index("--port") + 1]))
    try:
        await site.start()
    except OSError as e:
        print(f"OSError: {e}", flush=True)
        sys.exit(1)
    print("To see the GUI go to: http://127.0.0.1", flush=True)
    await server.run_forever()
