"""Sphinx builds the documentation with this: `./dev docs`, into build/docs.

The pages are Markdown that also reads well where it lies, on GitHub; so links go to files (`../concepts/ports.md`), and
what only the tests need stands in HTML comments, which are left out here.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx.util.nodes import make_refnode

import discomfort

if TYPE_CHECKING:
    from collections.abc import Callable

    from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parent.parent
SOURCE = "https://github.com/fidecastro/comfyui-discomfort"

project = "Discomfort"
author = "Discomfort developers"
copyright = author
version = release = discomfort.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build"]
# No intersphinx: it would fetch inventories, and a build must not need a network.

# ------------------------------------------------------------------------------------------------------------ Markdown

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
# `{{ x }}` in a page is text, not a substitution.
myst_substitutions: dict[str, Any] = {}
# A value in quotes is copied with them.
smartquotes = False
# Text with many examples of code: a word that Pygments cannot read (JSON with "...") is no reason to fail.
suppress_warnings = ["misc.highlighting_failure"]

# ------------------------------------------------------------------------------------------------------ the Python API

default_role = "code"  # `x` in a docstring is code, as in Markdown
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 76
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Read-only attributes", "params_style")]

# Every `:class:` and `:meth:` has to lead somewhere, except to what has no page here:
nitpicky = True
nitpick_ignore_regex = [
    # the standard library and other packages: their pages are in the net (see above, no intersphinx)
    (r"py:.*", r"(asyncio|collections|os|pathlib|types|typing|dataclasses|enum|subprocess|contextlib)(\..*)?"),
    (r"py:.*", r"(torch|numpy|np|aiohttp|networkx|psutil)(\..*)?"),
    # what JSON gives, and what is imported under its name alone
    (r"py:class", r"Json|Path"),
    (r"py:class", r"SeedPolicy|Resume|Keep|OnError|Items"),
    (r"py:class", r".*\.HeldObject"),
    # modules: a page is about a part of the package, not about a file
    (r"py:mod", r".*"),
    # Python's own errors
    (r"py:exc", r"\w*(Error|Interrupt)|asyncio\..*"),
]

# ----------------------------------------------------------------------------------------------------------------- HTML

html_theme = "furo"
html_title = f"Discomfort {release}"
html_static_path = ["_static"]
html_css_files = ["discomfort.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "source_repository": SOURCE,
    "source_branch": "main",
    "source_directory": "docs/",
    "top_of_page_buttons": ["view"],
}
_ICON = "images/icon.png"
if (Path(__file__).parent / _ICON).exists():
    html_logo = html_favicon = _ICON
copybutton_prompt_text = "$ "
copybutton_exclude = ".linenos, .gp, .go"

# Asked by `./dev docs --links` only. Addresses of this machine, and placeholders, are not links.
linkcheck_ignore = [r"https?://(127\.0\.0\.1|localhost|gpu-box|HOST)\b.*"]
linkcheck_anchors = False
linkcheck_timeout = 20


# ------------------------------------------------------------------------------------------------- how pages are read

# `<!-- page: FILE -->` as the first line: the page is that file of the repository.
_PAGE = re.compile(r"\A<!-- page: (\S+) -->\n")
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,}|:{3,})(.*)$")
_LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")


def _files_that_are_pages() -> dict[Path, Path]:
    """{file of the repository: the page that shows it}."""
    found = {}
    for page in Path(__file__).parent.rglob("*.md"):
        named = _PAGE.match(page.read_text(encoding="utf-8"))
        if named:
            found[(page.parent / named[1]).resolve()] = page
    return found


def _read_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """What Sphinx sees of a page: without comments, with links that lead to pages, or to the repository."""
    page = Path(app.env.doc2path(docname))
    text, origin = source[0], page
    named = _PAGE.match(text)
    if named:
        origin = (page.parent / named[1]).resolve()
        app.env.note_dependency(str(origin))
        text = origin.read_text(encoding="utf-8")
    source[0] = _outside_of_fences(text, lambda part: _with_links(_without_comments(part), origin, page))


def _outside_of_fences(text: str, change: Callable[[str], str]) -> str:
    """The text with everything changed that is not in a block of code."""
    found, part, fence = [], "", ""
    for line in text.splitlines(keepends=True):
        mark = _FENCE.match(line)
        if not fence and mark and not (mark[1][0] == "`" and "`" in mark[2]) and "<!--" not in _open_comment(part):
            found.append(change(part))
            part, fence = line, mark[1]
        elif fence and mark and mark[1].startswith(fence) and not mark[2].strip():
            found.append(part + line)
            part, fence = "", ""
        else:
            part += line
    return "".join([*found, part if fence else change(part)])


def _open_comment(part: str) -> str:
    """The comment that a text ends in, "" for none."""
    begin = part.rfind("<!--")
    return part[begin:] if begin > part.rfind("-->") else ""


def _without_comments(text: str) -> str:
    """Comments become empty lines, so that line numbers in warnings stay right."""
    return re.sub(r"<!--.*?-->", lambda m: "\n" * m[0].count("\n"), text, flags=re.DOTALL)


def _with_links(text: str, origin: Path, page: Path) -> str:
    """Links of *origin* as *page* has to write them. Files that are no pages are on GitHub."""

    def changed(link: re.Match[str]) -> str:
        begin, target, anchor, end = link[1], link[2], link[3] or "", link[4]
        if re.match(r"\w+:", target):
            return link[0]
        file = (origin.parent / target).resolve()
        if file in PAGES:
            target = os.path.relpath(PAGES[file], page.parent)
        elif DOCS in file.parents:
            target = os.path.relpath(file, page.parent)
        elif file.exists():
            kind = "tree" if file.is_dir() else "blob"
            target = f"{SOURCE}/{kind}/main/{file.relative_to(ROOT).as_posix()}"
        return f"{begin}{Path(target).as_posix() if '://' not in target else target}{anchor}{end}"

    return _LINK.sub(changed, text)


DOCS = Path(__file__).resolve().parent
PAGES = _files_that_are_pages()


# ---------------------------------------------------------------------------------------------- how docstrings are read


def _with_dashes(app: Sphinx, doctree: nodes.document) -> None:
    """Between a parameter and what it means. Sphinx writes two hyphens, and leaves the rest to its smart quotes."""
    for text in list(doctree.findall(nodes.Text)):
        if text.astext() == " -- ":
            text.parent.replace(text, nodes.Text(" – "))  # noqa: RUF001


def _plain_help(app: Sphinx, ctx: Any, lines: list[str]) -> None:
    """Help of a command is plain text, which may have patterns such as *.png in it."""
    lines[:] = [line if line.lstrip().startswith("..") else line.replace("*", "\\*") for line in lines]


# Docstrings of attributes while Napoleon works on them.
_sentences: dict[str, list[str]] = {}


def _for_users(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """What a class promises to its own code is not for the pages."""
    if what == "class" and "Invariants:" in lines:
        del lines[lines.index("Invariants:") :]


def _put_aside(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Napoleon takes what stands before a colon in an attribute's docstring for its type. Ours are sentences."""
    if what in ("attribute", "data", "property"):
        _sentences[name] = list(lines)


def _put_back(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    if what in ("attribute", "data", "property"):
        lines[:] = _sentences.pop(name, lines)


def _find_name(app: Sphinx, env: Any, node: Any, contnode: Any) -> Any:
    """Docstrings name things as the code around them does: `ComfyConnector.create` from another module, errors by name.

    What is called so only once leads there; an error, to its row in the catalogue; a name of a type, to their table.
    """
    target = node.get("reftarget", "").lstrip(".")
    if node.get("refdomain") != "py" or not target:
        return None
    objects = env.domains.python_domain.objects
    found = {entry[:2] for name, entry in objects.items() if name.endswith(f".{target}")}
    if len(found) == 1:
        page, anchor = found.pop()
    elif target in TYPES:
        page, anchor = "reference/python/tools", "names-of-types"
    elif target.rpartition(".")[2] in ERRORS:
        page, anchor = "reference/errors", target.rpartition(".")[2].lower()
    else:
        return None
    return make_refnode(app.builder, node["refdoc"], page, anchor, contnode, target)


def _names(page: str, pattern: str) -> set[str]:
    """What a generated table of a page of the reference has in its first column."""
    file = DOCS / "reference" / page
    return set(re.findall(pattern, file.read_text(encoding="utf-8"), re.MULTILINE)) if file.exists() else set()


ERRORS = _names("errors.md", r'<a id="\w+"></a>`(\w+)`')
TYPES = _names("python/tools.md", r"^\| `(\w+)` \| `")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", _read_page)
    app.connect("autodoc-process-docstring", _for_users, priority=400)
    app.connect("autodoc-process-docstring", _put_aside, priority=400)
    app.connect("autodoc-process-docstring", _put_back, priority=600)
    app.connect("missing-reference", _find_name)
    app.connect("doctree-read", _with_dashes)
    for part in ("description", "options", "arguments"):
        app.connect(f"sphinx-click-process-{part}", _plain_help)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
