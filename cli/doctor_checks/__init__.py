"""What ``discomfort doctor`` looks at: all checks, in the order in which they are done.

======================  ============================================================================================
``checkup.py``          checks and findings; how they are done: in order, each with a deadline
``programs.py``         other programs, with a deadline; questions to an interpreter; parts in processes of their own
``probe.py``            answers those questions, in the interpreter that is asked about
``parts.py``            the parts: starting a browser, and a server
``requirements.py``     names and versions of what must be installed
``*_checks.py``         the checks, a file for each area
======================  ============================================================================================
"""

from __future__ import annotations

from . import (
    browser_checks,
    comfyui_checks,
    disk_checks,
    leftover_checks,
    memory_checks,
    network_checks,
    python_checks,
    start_checks,
    system_checks,
)
from .checkup import Check

CHECKS = [
    Check("system", "System", system_checks.look_at_system),
    Check("python", "Python", python_checks.look_at_python),
    Check("packages", "Packages", python_checks.look_at_packages, deadline=90),
    Check("configuration", "Configuration", comfyui_checks.look_at_configuration),
    Check("environment", "Environment", comfyui_checks.look_at_environment),
    Check("comfyui", "ComfyUI", comfyui_checks.look_at_comfyui, ("configuration",)),
    Check("server-python", "Server's Python", comfyui_checks.look_at_server_python, ("comfyui",), 45),
    Check("server-packages", "Server's packages", comfyui_checks.look_at_server_packages, ("server-python",), 90),
    Check("nodes", "Discomfort's nodes", comfyui_checks.look_at_nodes, ("server-python",), 90),
    Check("torch", "PyTorch", comfyui_checks.look_at_torch, deadline=240),
    Check("frontend", "Frontend", comfyui_checks.look_at_frontend, ("server-python",)),
    Check("browser", "Browser", browser_checks.look_at_browser, ("configuration",), 90),
    Check("shared-memory", "Shared memory", memory_checks.look_at_shared_memory),
    Check("memory", "Memory", memory_checks.look_at_memory),
    Check("temp", "Temp folder", disk_checks.look_at_temp_folder),
    Check("cache", "Cache folder", disk_checks.look_at_cache_folder),
    Check("loopback", "Network", network_checks.look_at_loopback, ("configuration",)),
    Check("ports", "Ports", network_checks.look_at_ports, ("configuration", "loopback")),
    Check("limits", "Limits", system_checks.look_at_limits),
    Check("runs", "Runs", leftover_checks.look_at_runs),
    Check("warm", "Warm servers", leftover_checks.look_at_warm_servers),
    Check(
        "start",
        "Start",
        start_checks.start_server,
        ("packages", "comfyui", "server-packages", "nodes", "torch", "temp", "cache", "ports"),
        600,
        is_slow=True,
    ),
    Check("convert", "Conversion", start_checks.convert_workflow, ("start", "browser", "frontend"), 600, True),
    Check("use-ports", "A run", start_checks.use_ports, ("start", "shared-memory"), 180, True),
    Check("stop", "Shutdown", start_checks.stop_server, ("start",), 180, True),
]

__all__ = ["CHECKS"]
