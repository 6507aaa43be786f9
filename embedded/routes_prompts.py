"""HTTP routes about prompts: queueing, history, interruption, node descriptions, the state of the machine."""

from __future__ import annotations

import json
import logging
import time
import traceback
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any

from aiohttp import web

from . import execution, folder_paths, jobs, node_registry, system_stats
from .core_nodes import NODE_CLASS_MAPPINGS as CORE_NODES
from .core_nodes import ORIGINS
from .node_api.calls import is_v3
from .prompt_queue import QueueItem
from .websocket import server_features

if TYPE_CHECKING:
    from .server import PromptServer

logger = logging.getLogger("discomfort.embedded.routes_prompts")


def add_prompt_routes(server: PromptServer) -> None:
    """Add them all."""
    _add_queue_routes(server)
    _add_history_routes(server)
    _add_job_routes(server)
    _add_description_routes(server)


def _add_queue_routes(server: PromptServer) -> None:
    routes, queue = server.routes, server.prompt_queue

    @routes.get("/prompt")
    async def get_prompt(_: web.Request) -> web.Response:
        return web.json_response(server.get_queue_info())

    @routes.post("/prompt")
    async def post_prompt(request: web.Request) -> web.Response:
        logger.info("got prompt")
        return await _queue_prompt(server, server.trigger_on_prompt(await request.json()))

    @routes.get("/queue")
    async def get_queue(_: web.Request) -> web.Response:
        running, pending = queue.get_current_queue_volatile()
        return web.json_response({"queue_running": running, "queue_pending": pending})

    @routes.post("/queue")
    async def post_queue(request: web.Request) -> web.Response:
        body = await request.json()
        if body.get("clear"):
            queue.wipe_queue()
        for prompt_id in body.get("delete", ()):
            queue.delete_queue_item(partial(_has_id, prompt_id))
        return web.Response(status=200)

    @routes.post("/interrupt")
    async def post_interrupt(request: web.Request) -> web.Response:
        try:
            body = await request.json()
        except json.JSONDecodeError:
            body = {}
        prompt_id = body.get("prompt_id")
        if not prompt_id:
            logger.info("Global interrupt (no prompt_id specified)")
            node_registry.interrupt_processing()
        elif queue.interrupt_if_running(prompt_id):
            logger.info("Interrupting prompt %s", prompt_id)
        else:
            logger.info("Prompt %s is not currently running, skipping interrupt", prompt_id)
        return web.Response(status=200)

    @routes.post("/free")
    async def post_free(request: web.Request) -> web.Response:
        body = await request.json()
        for flag in ("unload_models", "free_memory"):
            if body.get(flag, False):
                queue.set_flag(flag, body[flag])
        return web.Response(status=200)


def _has_id(prompt_id: str, item: QueueItem) -> bool:
    """Whether a queue item is that prompt."""
    return item[1] == prompt_id


async def _queue_prompt(server: PromptServer, body: dict[str, Any]) -> web.Response:
    """POST /prompt: validate and queue.

    Answers 200 also when some outputs were refused (they are in node_errors) and the others run.
    """
    if "number" in body:
        number = float(body["number"])
    else:
        # A list is a body without a prompt, as any JSON in which one can look for a key.
        front = isinstance(body, dict) and body.get("front")
        number = -server.number if front else server.number
        server.number += 1
    if "prompt" not in body:
        error = {
            "type": "no_prompt",
            "message": "No prompt provided",
            "details": "No prompt provided",
            "extra_info": {},
        }
        return web.json_response({"error": error, "node_errors": {}}, status=400)
    prompt_id = str(body.get("prompt_id", uuid.uuid4()))
    server.node_replace_manager.apply_replacements(body["prompt"])
    # Looked up now, and unpacked: packages put functions of their own in its place.
    valid, reason, outputs, node_errors = await execution.validate_prompt(
        prompt_id, body["prompt"], body.get("partial_execution_targets")
    )
    if not valid:
        logger.warning("invalid prompt: %s", reason)
        return _json({"error": reason, "node_errors": node_errors}, status=400)
    # create_time is what later ComfyUI versions add, and the editor's job list shows.
    extra_data = {**body.get("extra_data", {}), "create_time": int(time.time() * 1000)}
    if "client_id" in body:
        extra_data["client_id"] = body["client_id"]
    server.prompt_queue.put((number, prompt_id, body["prompt"], extra_data, outputs))
    return _json({"prompt_id": prompt_id, "number": number, "node_errors": node_errors})


def _add_history_routes(server: PromptServer) -> None:
    routes, queue = server.routes, server.prompt_queue

    @routes.get("/history")
    async def get_history(request: web.Request) -> web.Response:
        max_items = request.query.get("max_items")
        entries = queue.get_history(
            max_items=int(max_items) if max_items is not None else None,
            offset=int(request.query.get("offset", -1)),
        )
        return _json(entries)

    @routes.get("/history/{prompt_id}")
    async def get_history_of(request: web.Request) -> web.Response:
        return _json(queue.get_history(prompt_id=request.match_info["prompt_id"]))

    @routes.post("/history")
    async def post_history(request: web.Request) -> web.Response:
        body = await request.json()
        if body.get("clear"):
            queue.wipe_history()
        for prompt_id in body.get("delete", ()):
            queue.delete_history_item(prompt_id)
        return web.Response(status=200)


def _add_job_routes(server: PromptServer) -> None:
    routes, queue = server.routes, server.prompt_queue

    def cancel(job_id: str) -> bool:
        """Cancel a prompt that waits or runs; whether there was one. In this order: it may start in between."""
        return queue.delete_queue_item(partial(_has_id, job_id)) or queue.interrupt_if_running(job_id)

    @routes.get("/jobs")
    async def get_jobs(request: web.Request) -> web.Response:
        try:
            query = jobs.JobQuery.parse(request.query)
        except ValueError as exc:
            return web.json_response({"error": str(exc)}, status=400)
        running, pending = queue.get_current_queue_volatile()
        return _json(jobs.list_jobs(query, running, pending, queue.get_history()))

    @routes.get("/jobs/{job_id}")
    async def get_job(request: web.Request) -> web.Response:
        job_id = request.match_info["job_id"]
        running, pending = queue.get_current_queue_volatile()
        job = jobs.describe_job(job_id, running, pending, queue.get_history(prompt_id=job_id))
        if job is None:
            return web.json_response({"error": "Job not found"}, status=404)
        return _json(job)

    @routes.post("/jobs/{job_id}/cancel")
    async def post_cancel(request: web.Request) -> web.Response:
        return web.json_response({"cancelled": cancel(request.match_info["job_id"])})

    @routes.post("/jobs/cancel")
    async def post_cancel_several(request: web.Request) -> web.Response:
        try:
            body = await request.json()
        except json.JSONDecodeError:
            return web.json_response({"error": "Request body must be valid JSON"}, status=400)
        job_ids = body.get("job_ids") if isinstance(body, dict) else None
        if not isinstance(job_ids, list):
            return web.json_response({"error": "job_ids must be a list"}, status=400)
        invalid = jobs.bad_ids(job_ids)
        if invalid:
            error = {"error": "job_ids contains invalid id(s)", "invalid_ids": invalid}
            return web.json_response(error, status=400)
        # All of them, also behind one that is past: no any() over the calls.
        cancelled = [cancel(job_id) for job_id in job_ids]
        return web.json_response({"cancelled": any(cancelled)})


def _add_description_routes(server: PromptServer) -> None:
    routes = server.routes

    @routes.get("/object_info")
    async def get_object_info(_: web.Request) -> web.Response:
        described = {}
        with folder_paths.cache_helper:
            for class_type in node_registry.NODE_CLASS_MAPPINGS:
                try:
                    described[class_type] = describe_node(class_type)
                except Exception:
                    logger.error("Node %s cannot be described:\n%s", class_type, traceback.format_exc())
        return _json(described)

    @routes.get("/object_info/{node_class}")
    async def get_object_info_of(request: web.Request) -> web.Response:
        class_type = request.match_info["node_class"]
        known = class_type in node_registry.NODE_CLASS_MAPPINGS
        return _json({class_type: describe_node(class_type)} if known else {})

    @routes.get("/system_stats")
    async def get_system_stats(_: web.Request) -> web.Response:
        return web.json_response(system_stats.collect())

    @routes.get("/features")
    async def get_features(_: web.Request) -> web.Response:
        return web.json_response(server_features())

    @routes.get("/node_replacements")
    async def get_node_replacements(_: web.Request) -> web.Response:
        return web.json_response(server.node_replace_manager.as_dict())


def describe_node(class_type: str) -> dict[str, Any]:
    """A node class as /object_info has it.

    Raises:
        Exception: of the class's INPUT_TYPES.
    """
    node_class = node_registry.NODE_CLASS_MAPPINGS[class_type]
    if is_v3(node_class):
        return dict(node_class.GET_NODE_INFO_V1())
    inputs = node_class.INPUT_TYPES()
    outputs = node_class.RETURN_TYPES
    info = {
        "input": inputs,
        "input_order": {category: list(names) for category, names in inputs.items()},
        "output": outputs,
        "output_is_list": getattr(node_class, "OUTPUT_IS_LIST", [False] * len(outputs)),
        "output_name": getattr(node_class, "RETURN_NAMES", outputs),
        "name": class_type,
        "display_name": node_registry.NODE_DISPLAY_NAME_MAPPINGS.get(class_type, class_type),
        "description": getattr(node_class, "DESCRIPTION", ""),
        "python_module": getattr(node_class, "RELATIVE_PYTHON_MODULE", "nodes"),
        "category": getattr(node_class, "CATEGORY", "sd"),
        "output_node": getattr(node_class, "OUTPUT_NODE", False) is True,
    }
    if hasattr(node_class, "OUTPUT_TOOLTIPS"):
        info["output_tooltips"] = node_class.OUTPUT_TOOLTIPS
    for attribute, key in (("DEPRECATED", "deprecated"), ("EXPERIMENTAL", "experimental")):
        if getattr(node_class, attribute, False):
            info[key] = True
    if hasattr(node_class, "API_NODE"):
        info["api_node"] = node_class.API_NODE
    # A package may replace a core node by one of its own.
    if class_type in ORIGINS and CORE_NODES[class_type] is node_class:
        has_title = class_type in node_registry.NODE_DISPLAY_NAME_MAPPINGS
        return ORIGINS[class_type].describe(info, node_class, has_title)
    return info


def _json(data: Any, status: int = 200) -> web.Response:
    """JSON of data that nodes had a hand in.

    Where they put something into it that JSON does not have, the answer is a 500 with a JSON error instead of
    an empty one, so that it can be found.
    """
    try:
        return web.json_response(data, status=status)
    except TypeError as exc:
        logger.exception("An answer cannot be written as JSON")
        error = {"type": "not_json", "message": str(exc), "details": "", "extra_info": {}}
        return web.json_response({"error": error, "node_errors": {}}, status=500)
