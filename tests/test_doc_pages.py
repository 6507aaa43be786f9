"""The documentation is followed word for word, in a fresh folder (tools/run_page.py says how); and that runner itself.

The sections have files of their own, test_doc_pages_*.py.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import wheels
from doc_pages import DOCS, environment, follow, pages_with_code, run_page


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", pages_with_code(""))
def test_a_page_does_what_it_says(page: str, tmp_path: Path, nested: SimpleNamespace) -> None:
    follow(page, tmp_path, nested)


def test_every_folder_of_the_documentation_is_followed() -> None:
    pages = {page.relative_to(DOCS).with_suffix("").as_posix() for page in DOCS.rglob("*.md")}
    followed = pages_with_code("", "tutorial", "how-to", "concepts", "reference", "measured")
    assert {page for page in pages if run_page.blocks_of(DOCS / f"{page}.md")} == set(followed)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment into which the wheel was installed."""
    folder = tmp_path_factory.mktemp("installed")
    wheel = wheels.build_wheel(wheels.copy_clone(folder / "source"), folder)
    return wheels.make_environment(folder / "environment", wheel)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", ["index", "tutorial/first-port", "tutorial/first-loop"])
def test_a_new_user_needs_nothing_but_the_installed_wheel(
    page: str, installed: Path, tmp_path: Path, nested: SimpleNamespace
) -> None:
    file = DOCS / f"{page}.md"
    assert not [block for block in run_page.blocks_of(file) if block.language == "hidden"], "set-up that nobody sees"
    follow(page, tmp_path, nested, installed)
    where = "import discomfort; print(discomfort.__file__)"
    found = subprocess.run([installed, "-c", where], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert installed.parent.parent in Path(found.strip()).parents


def test_few_blocks_are_not_run_and_each_says_why() -> None:
    left = [(page, block) for page in DOCS.rglob("*.md") for block in run_page.blocks_of(page) if block.not_run]
    assert len(left) <= 12, [f"{page}:{block.line}" for page, block in left]
    assert all(len(block.not_run.split()) > 2 for _, block in left)


# ---- the runner itself ----


def follow_text(page: Path, folder: Path, home: Path) -> None:
    with run_page.PageRun(page, folder, Path(sys.executable), environment(home)) as run:
        for _ in run.all_blocks():
            pass


def page_of(folder: Path, text: str) -> Path:
    file = folder / "page.md"
    file.write_text(text, encoding="utf-8")
    return file


GOOD = """
<!-- hidden python
answer = 41
-->

```python
import asyncio

await asyncio.sleep(0)
answer += 1
answer
```

```text
42
```

```python
# first.py
print("from a file")
```

<!-- file: data.json -->
```json
{"a": 1}
```

```sh
export WORD=kept
mkdir -p inner
cp first.py data.json inner
cd inner
```

```python
# there.py
print("there")
```

```sh
python first.py
echo "$WORD"
cat data.json
test -f there.py
```

```text
from a ...
kept
{"a": 1}
```

<!-- not run: it would take a year -->
```sh
sleep 31536000
```

```sh
sleep 60 &
echo $! > pid
```

```sh
kill "$(cat pid)"
```
"""


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    (tmp_path / "fresh").mkdir()
    return tmp_path / "fresh"


def test_a_page_is_one_session(tmp_path: Path, fresh: Path) -> None:
    follow_text(page_of(tmp_path, GOOD), fresh, tmp_path)
    assert (fresh / "inner" / "data.json").is_file()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("```python\n1 / 0\n```", "ZeroDivisionError"),
        ("```python\nprint('a')\n```\n\n```text\nb\n```", "the page says\nb"),
        ("```python\nimport sys\nsys.exit(3)\n```", "SystemExit: 3"),
        ("```python\nimport os\nos._exit(3)\n```", "the session ended with status 3"),
        ("```sh\nfalse\ntrue\n```", "exit status 1"),
        ("```sh\necho b\n```\n\n```text\na\n```", "printed\nb"),
        ("```json\n{'a': 1}\n```", "not JSON"),
        ("```toml\na = 1\n```", "'toml' cannot be run"),
        ("    indented\n", "'' cannot be run"),
        ("```sh\nsleep 60 &\n```", "leaves processes running"),
    ],
)
def test_what_is_not_as_the_page_says_is_told_with_its_line(tmp_path: Path, fresh: Path, text: str, says: str) -> None:
    page = page_of(tmp_path, f"Text.\n\n{text}\n")
    with pytest.raises(run_page.PageError) as caught:
        follow_text(page, fresh, tmp_path)
    assert str(caught.value).startswith(f"{page}:")
    assert says in str(caught.value)


@pytest.mark.parametrize("text", ["```sh\nsleep 60\n```", "```python\nimport time\ntime.sleep(60)\n```"])
def test_a_block_that_hangs_ends(tmp_path: Path, fresh: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_page, "BLOCK_TIMEOUT", 0.5)
    with pytest.raises(run_page.PageError, match="did not end within"):
        follow_text(page_of(tmp_path, text), fresh, tmp_path)
