"""Looking into a run from outside, alive or dead, without becoming a part of it."""

from __future__ import annotations

import os

from .errors import StoreInsecure
from .files import Folder
from .runs import Roots, RunSummary, open_twin, read_run_file
from .store import RunStore


def look_into(run: RunSummary, roots: Roots) -> RunStore:
    """Open a run from ``list_runs`` for reading.

    Unlike ``RunStore.attach`` it also opens what a dead owner left, and it tidies nothing up. Use what it returns for
    reading only; closing it removes nothing. Folders and files are checked as everywhere.

    Raises:
        FileNotFoundError: if it is gone by now, or not yet finished.
        StoreInsecure: if a folder of it is refused.
        StoreCorrupt: if this version cannot read it.
    """
    if not run.run_id:
        raise StoreInsecure(run.problem)
    home = Folder.open_private(os.path.dirname(run.path))
    main = Folder.open_private(os.path.basename(run.path), home)
    content = read_run_file(main, run.run_id)
    twin = open_twin(content.get("disk_path"), run.run_id)
    is_in_ram = content.get("main") == "ram"
    return RunStore(run.run_id, main, twin, is_in_ram, content["ram_capacity"], roots, content.get("lender"))
