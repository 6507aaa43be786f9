"""docs/conf.py: what the builder makes of a page. All pages are built by `./dev test` (its check "docs"), not here."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def build(tmp_path: Path):
    """Builds a page with the project's own configuration: (exit status, warnings, HTML)."""
    pytest.importorskip("sphinx")
    docs = tmp_path / "docs"
    (docs / "reference").mkdir(parents=True)
    (docs / "_static").mkdir()
    shutil.copy(ROOT / "docs" / "conf.py", docs)
    shutil.copy(ROOT / "docs" / "_static" / "discomfort.css", docs / "_static")
    shutil.copy(ROOT / "CONTRIBUTING.md", tmp_path)
    (docs / "reference" / "errors.md").write_text('# Errors\n\n<a id="configerror"></a>`ConfigError`\n')
    (docs / "contributing.md").write_text("<!-- page: ../CONTRIBUTING.md -->\n")

    def run(text: str, *more: str) -> tuple[int, str, str]:
        tree = "\n\n```{toctree}\nreference/errors\ncontributing\n```\n"
        (docs / "index.md").write_text(text + tree, encoding="utf-8")
        words = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", *more]
        done = subprocess.run(
            [*words, str(docs), str(tmp_path / "html")], cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        page = tmp_path / "html" / "index.html"
        return done.returncode, done.stderr, page.read_text(encoding="utf-8") if page.exists() else ""

    return run


def test_a_page_without_mistakes_is_built_without_a_warning(build) -> None:
    status, warnings, html = build(
        "# Start\n\n<!-- hidden python\n\nsecret_setup = 1\n\n-->\n```python\nx = 1  # <!-- stays -->\n```\n\n"
        "<!-- not run: it would take a year -->\n```sh\nsleep 31536000\n```\n\n"
        "[How](../CONTRIBUTING.md#tests), [errors](reference/errors.md#errors)\n"
    )
    assert (status, warnings) == (0, "")
    text = re.sub(r"<[^>]+>", "", html)
    assert "secret_setup" not in html
    assert "take a year" not in html
    assert "&lt;!-- stays --&gt;" in text
    assert 'href="contributing.html#tests"' in html
    assert 'href="reference/errors.html#errors"' in html


@pytest.mark.parametrize(
    ("mistake", "names"),
    [
        ("[gone](nowhere.md)", "nowhere.md"),
        ("[gone](reference/errors.md#nowhere)", "nowhere"),
        ("[gone](#nowhere)", "nowhere"),
        ("```{eval-rst}\n:class:`discomfort.Nowhere`\n```", "Nowhere"),
        ("```{unheard-of}\n```", "unheard-of"),
        ("![gone](images/nowhere.png)", "nowhere.png"),
    ],
    ids=["page", "anchor in a page", "anchor", "class", "directive", "picture"],
)
def test_what_leads_nowhere_makes_the_build_fail(build, mistake: str, names: str) -> None:
    status, warnings, _ = build(f"# Start\n\n{mistake}\n")
    assert status == 1
    assert names in warnings


def test_docstrings_are_read_as_they_are_meant(build) -> None:
    """A colon in an attribute's sentence is no type; errors lead to the catalogue."""
    status, warnings, html = build(
        "# Start\n\n```{eval-rst}\n.. autoclass:: discomfort.run_record.RunResult()\n   :members: master_seed\n\n"
        "It may raise :exc:`~.comfy_serverless.ConfigError`.\n```\n"
    )
    assert (status, warnings) == (0, "")
    text = " ".join(re.sub(r"<[^>]+>", " ", html).split())
    assert "What the run's seeds were drawn from: given to another run, it draws the same ones." in text
    assert 'href="reference/errors.html#configerror"' in html
