"""Node packages: which names of ComfyUI they find, what these do, and what becomes of packages that are broken.

The packages are in the folder ``packs`` or written below as text; each server gets all of them at once, because a
package that fails must do no harm to the others.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from conformance import driver

node, link = driver.node, driver.link

PACKS = Path(__file__).resolve().parent / "packs"
