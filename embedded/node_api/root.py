"""``comfy_api``: a package in which nothing but the names of ``module_names.py`` can be found."""

from __future__ import annotations

__path__: list[str] = []
