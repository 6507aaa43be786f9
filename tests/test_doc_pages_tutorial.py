"""The tutorial of docs/ is followed word for word (doc_pages.py)."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from doc_pages import follow, pages_with_code


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", pages_with_code("tutorial"))
def test_a_page_does_what_it_says(page: str, tmp_path: Path, nested: SimpleNamespace) -> None:
    follow(page, tmp_path, nested)
