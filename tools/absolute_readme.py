"""Writes README.md with absolute links, for PyPI, which shows that file alone.

The links of the README are relative, for whoever reads it in a clone or on GitHub. The workflow that publishes a
release runs this before it builds; the links lead to the tag of that release. setuptools has no means to do it.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = "https://github.com/fidecastro/comfyui-discomfort/blob/v{version}/"
FILES = "https://raw.githubusercontent.com/fidecastro/comfyui-discomfort/v{version}/"

# [text](target) and ![text](target), and where a fenced block begins or ends.
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^\s*(```|~~~)")


def version(pyproject: str) -> str:
    """The version that a pyproject.toml states."""
    found = re.search(r'^version = "([^"]+)"$', pyproject, re.MULTILINE)
    if found is None:
        raise SystemExit(f"{ROOT / 'pyproject.toml'} states no version")
    return found[1]


def absolute(text: str, release: str) -> str:
    """Markdown whose relative links lead to the files of a release; code blocks stay as they are.

    Args:
        text: Of README.md.
        release: Version, for example "0.1.0".
    """

    def lead(link: re.Match[str]) -> str:
        is_picture, words, target = link.groups()
        if re.match(r"[a-z]+:|#", target):
            return link[0]
        base = FILES if is_picture else PAGES
        return f"{is_picture}[{words}]({base.format(version=release)}{target})"

    lines, is_code = [], False
    for line in text.splitlines(keepends=True):
        if _FENCE.match(line):
            is_code = not is_code
        lines.append(line if is_code else _LINK.sub(lead, line))
    return "".join(lines)


def main() -> int:
    readme = ROOT / "README.md"
    text = readme.read_text("utf-8")
    readme.write_text(absolute(text, version((ROOT / "pyproject.toml").read_text("utf-8"))), "utf-8")
    print(f"{readme}: its links are absolute now")
    return 0


if __name__ == "__main__":
    sys.exit(main())
