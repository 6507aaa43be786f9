"""The list of all routes; docs/reference/editor-protocol.md says what each takes and gives."""

from __future__ import annotations

from aiohttp import web

from .answering import Handler, guarded
from .hub import Hub
from .link_socket import LinkSocket
from .publication import Publication
from .routes_runs import RunRoutes
from .routes_state import StateRoutes
from .routes_workflows import WorkflowRoutes


def add_routes(table: web.RouteTableDef, hub: Hub, publication: Publication) -> LinkSocket:
    """Add the routes to a server's table; returns the one that has connections to close at the end."""
    state, runs, workflows, link = (
        StateRoutes(hub, publication),
        RunRoutes(hub),
        WorkflowRoutes(),
        LinkSocket(hub, publication),
    )
    handlers: list[tuple[str, str, Handler]] = [
        ("GET", "/state", state.get_state),
        ("POST", "/settings", state.post_settings),
        ("POST", "/server/stop", state.post_server_stop),
        ("GET", "/link", link.connect),
        ("GET", "/runs/{run_id}/events", runs.get_events),
        ("GET", "/runs/{run_id}/thumbnails/{name}", runs.get_thumbnail),
        ("GET", "/runs/{run_id}/values/{name}", runs.get_value),
        ("GET", "/runs/{run_id}/values/{name}/picture", runs.get_picture),
        ("POST", "/runs/{run_id}/command", runs.post_command),
        ("DELETE", "/runs/{run_id}", runs.delete_run),
        ("GET", "/runs/{run_id}/workflows/{number}", runs.get_workflow),
        ("GET", "/runs/{run_id}/stitched", runs.get_stitched),
        ("GET", "/runs/{run_id}/report", runs.get_report),
        ("GET", "/workflows", workflows.get_workflows),
        ("POST", "/ports", workflows.post_ports),
        ("POST", "/condition", workflows.post_condition),
    ]
    for method, path, handler in handlers:
        table.route(method, f"/discomfort{path}")(guarded(handler))
    return link
