"""Workflows that runner nodes may run: which there are, which sockets they make, and what is wrong with a condition."""

from __future__ import annotations

import asyncio
import functools
import sys
from typing import Any

from aiohttp import web

from .answering import RefusedError, encode, encoded_answer, read_json, texts_of
from .workflow_files import DEFAULT_USER, folders, list_workflows, resolve_workflow

Json = dict[str, Any]
# The workflows, and those of the two ways of a branch.
_Groups = tuple[list[str], list[str], list[str]]


class WorkflowRoutes:
    """Handlers of /discomfort/workflows, /discomfort/ports and /discomfort/condition."""

    async def get_workflows(self, request: web.Request) -> web.StreamResponse:
        """The workflows that can be chosen."""
        user = _user_of(request)
        return encoded_answer(await asyncio.to_thread(lambda: encode({"workflows": list_workflows(folders(user))})))

    async def post_ports(self, request: web.Request) -> web.StreamResponse:
        """The ports of a list of workflows, with those of a branch behind them."""
        groups = _groups(await read_json(request))
        return encoded_answer(await asyncio.to_thread(_ports, _user_of(request), groups))

    async def post_condition(self, request: web.Request) -> web.StreamResponse:
        """What is wrong with a condition over the ports of these workflows; without workflows only its syntax."""
        content = await read_json(request)
        condition, groups = content.get("condition", ""), _groups(content)
        if not isinstance(condition, str):
            raise RefusedError(400, "'condition' is a text.")
        return encoded_answer(await asyncio.to_thread(_condition, _user_of(request), condition, groups))


def _groups(content: Json) -> _Groups:
    """The lists of workflows in a request. Lines that are empty are none."""
    lists = [texts_of(content, key) for key in ("workflows", "then", "otherwise")]
    names, then, otherwise = ([name for name in one if name.strip()] for one in lists)
    return names, then, otherwise


def _found(user: str, groups: _Groups) -> Json:
    # Not at the top, like the others below: ComfyUI's start is not to wait for what the first look needs.
    from .runner_ports import ports_of_workflows

    names, then, otherwise = groups
    resolve = functools.partial(resolve_workflow, places=folders(user))
    return ports_of_workflows(names, then, otherwise, resolve=resolve)


def _ports(user: str, groups: _Groups) -> bytes:
    return encode(_found(user, groups))


def _condition(user: str, condition: str, groups: _Groups) -> bytes:
    from .conditions import check_condition

    known = None
    if any(groups):
        ports = _found(user, groups)
        # A file that cannot be read may have the port: then nothing is missed.
        if not ports["problems"]:
            known = {port["unique_id"] for port in (*ports["inputs"], *ports["outputs"])}
    return encode(check_condition(condition, known))


def _user_of(request: web.Request) -> str:
    """Whose workflows: ComfyUI's user of this request (--multi-user), else the only one."""
    server: Any = sys.modules.get("server")
    instance = getattr(getattr(server, "PromptServer", None), "instance", None)
    manager = getattr(instance, "user_manager", None)
    if manager is None:
        return DEFAULT_USER
    try:
        return str(manager.get_request_user_id(request))
    except KeyError:  # a user that there is not
        return DEFAULT_USER
