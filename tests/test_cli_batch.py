"""``discomfort batch``: which items its options mean, what it prints, and how it ends.

Which items is found before a server is there; the rest is tried on one warm server.
"""

from __future__ import annotations

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from discomfort.cli import commands
from discomfort.cli.batch import _Items
from pack_server import warm_config
from PIL import Image
from prompt_parts import executions, node, port

INVERT = {"1": port("image"), "2": node("ImageInvert", image=["1", 0]), "3": port("image", ["2", 0])}


def refuse(log: str, refused: int) -> dict[str, Any]:
    checked = node("RunTestRefuse", number=["1", 0], refused=refused, log=log)
    return {"1": port("n"), "2": checked, "3": port("seen", ["2", 0])}


def mix(log: str) -> dict[str, Any]:
    """state -> state * 3 + by."""
    mixed = node("RunTestMix", state=["1", 0], by=["2", 0], seed=0, log=log)
    return {"1": port("state"), "2": port("by"), "3": mixed, "4": port("state", ["3", 0])}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with pictures (one of them in a folder of its own) and a workflow."""
    monkeypatch.chdir(tmp_path)
    Path("photos/more").mkdir(parents=True)
    for name in ("p1", "p2", "p10", "more/p1"):
        Image.new("RGB", (8, 6), (len(name), 10, 20)).save(f"photos/{name}.png")
    write("photos/notes.txt", "no picture")
    write("invert.json", INVERT)
    return tmp_path


def write(name: str, content: Any) -> str:
    Path(name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return name


def batch(*words: Any, status: int = 0, stdin: str | None = None) -> Any:
    """A click Result of `discomfort batch`."""
    result = CliRunner().invoke(commands, ["batch", *map(str, words)], input=stdin)
    assert isinstance(result.exception, (SystemExit, type(None))), result.exc_info
    assert result.exit_code == status, result.output
    return result


def items(*sources: str, kind: str = "IMAGE", key: str = "name", pattern: str = "*", **others: str) -> dict[str, Any]:
    return _Items("port", {"port": kind, **others}, key, pattern).read(sources).found


# --------------------------------------------------------------------------------------------------------------- items


def test_pictures_are_found_in_folders_and_patterns_in_natural_order(here: Path) -> None:
    assert list(items("photos")) == ["p1.png", "p2.png", "p10.png"]
    assert items("photos")["p2.png"] == Path("photos/p2.png")
    assert list(items("photos", pattern="**/*")) == ["more/p1.png", "p1.png", "p2.png", "p10.png"]
    assert list(items("photos", pattern="p1*")) == ["p1.png", "p10.png"]
    assert list(items("photos/p?.png")) == ["p1.png", "p2.png"]
    assert list(items("photos/p2.png", "photos/p1.png")) == ["p2.png", "p1.png"]
    assert list(items("photos", key="stem")) == ["p1", "p2", "p10"]
    assert list(items("photos", "photos/more", key="path"))[-1] == "photos/more/p1.png"
    assert list(items("photos", key="number")) == ["item-000000", "item-000001", "item-000002"]
    # A type that is not known: texts beside pictures are notes on them.
    assert list(items("photos", kind="*")) == ["p1.png", "p2.png", "p10.png"]
    Path("texts").mkdir()
    write("texts/a.txt", "one")
    assert items("texts", kind="*") == {"a.txt": "one"}
    assert items("photos", kind="STRING") == {"notes.txt": "no picture"}


def test_lists_of_items(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("photos/list.txt", "p2.png\n\n  p1.png\n")
    assert items("@photos/list.txt") == {"p2.png": Path("photos/p2.png"), "p1.png": Path("photos/p1.png")}
    write("texts.txt", "a cat\n3\n@home\n")
    assert list(items("@texts.txt", kind="STRING").values()) == ["a cat", "3", "@home"]
    assert list(items(f"@{write('n.txt', '3')}", kind="FLOAT").values()) == [3.0]
    write("list.json", ["a cat", {"port": "a dog", "seed": 3}, {"port": "x", "image": "photos/p1.png"}])
    found = items("@list.json", kind="STRING", seed="INT", image="IMAGE")
    assert list(found.values()) == [
        "a cat", {"port": "a dog", "seed": 3}, {"port": "x", "image": Path("photos/p1.png")},
    ]  # fmt: skip
    assert next(iter(found)) == "item-000000"
    write("named.json", {"cat": "a cat", "dog": {"port": "a dog"}})
    assert items("@named.json", kind="STRING") == {"cat": "a cat", "dog": {"port": "a dog"}}
    write("list.jsonl", '1\n{"port": 2}\n')
    assert list(items("@list.jsonl", kind="INT").values()) == [1, {"port": 2}]


@pytest.mark.parametrize(
    ("source", "content", "kind", "says"),
    [
        ("nope", None, "IMAGE", "there is no folder or file nope"), ("no*.png", None, "IMAGE", "no file matches no*"),
        ("empty", "", "IMAGE", "empty has no file that matches '*' (.bmp"), ("@x.txt", None, "IMAGE", "no file x.txt"),
        ("@x.txt", "p1.png\n", "IMAGE", "--items @x.txt, line 1: there is no file p1.png"),
        ("@x.txt", "\n\n", "STRING", "--items @x.txt has no items"), ("@x.json", "[1", "INT", "x.json is not JSON"),
        ("@x.json", "3", "INT", "is a JSON int; a list of items"), ("@x.json", "[]", "INT", "has no items"),
        ("@x.json", "[1, 2.5]", "INT", "--items @x.json[1]: the port takes INT, and '2.5' is none"),
        ("@x.json", '[{"prot": 1}]', "INT", "there is no INPUT port 'prot'. There are: 'port'. Did you mean 'port'?"),
        ("@x.jsonl", "{\n", "INT", "x.jsonl is not JSON"),
        ("photos/p1.png", None, "LATENT", "items of a batch are pictures"),
        ("photos/p1.png", None, "STRING", "is no text in UTF-8"),
    ],
)  # fmt: skip
def test_items_that_are_none(here: Path, source: str, content: str | None, kind: str, says: str) -> None:
    if source == "empty":
        Path("empty").mkdir()
    elif content is not None:
        write(source[1:], content)
    with pytest.raises((ValueError, click.ClickException)) as caught:
        items(source, kind=kind)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("words", "says", "status"),
    [
        ("invert.json --items photos", "Missing option '-o' / '--output' / '--checkpoint'", 2),
        ("invert.json -o out", "Missing option '--items'", 2),
        ("nope.json --items photos -o out", "no workflow file", 3),
        ("invert.json --items photos --items photos/more -o out", "have the key 'p1.png': --key path tells them", 2),
        ("invert.json --items photos -o out -i image=@photos", "in a batch the items are what changes", 2),
        ("invert.json --items photos -o out --input-port imgae", "no INPUT port that needs a value 'imgae'", 2),
        ("mix.json --items photos -o out", "not clear which INPUT port the items go to; there are 'state', 'by'", 2),
        ("mix.json --items @n.txt --input-port by -o out", "INPUT port 'state' (*) has no value: -i state=VALUE", 2),
        ("invert.json --items photos -o out --until image", "say with -n N", 2),
        ("invert.json photos/p1.png --items photos/p2.png -o out", "put patterns into quotes", 1),
        ("invert.json --items photos -o invert.json", "is a file", 2),
        ("invert.json --items nope -o out --config none.json", "there is no folder or file nope", 1),
    ],
)  # fmt: skip
def test_a_command_line_that_makes_no_sense(here: Path, words: str, says: str, status: int) -> None:
    write("mix.json", mix("x"))
    write("n.txt", "1")
    assert says in batch(*shlex.split(words), status=status).stderr
    assert not Path("out").exists()


# -------------------------------------------------------------------------------------------------------------- server


@pytest.fixture(scope="module")
def config(write_config: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The configuration of a server that stays for all tests here."""
    with warm_config(write_config, tmp_path_factory.mktemp("packs")) as path:
        yield path


@pytest.fixture
def log(tmp_path: Path) -> str:
    return str(tmp_path / "executions.txt")


def test_a_folder_with_a_bad_picture(here: Path, config: Path) -> None:
    write("photos/p5.png", "no picture")
    words = ["invert.json", "--items", "photos", "-o", "out", "--config", config]
    done = batch(*words, status=4)
    assert "discomfort: The item 'p5.png' failed and is skipped: 'photos/p5.png' is not an image" in done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["item", "state", "seconds", "result"]
    assert lines[1].startswith("p5.png")
    assert lines[-2].startswith("4 items: 3 done, 1 failed; ")
    assert lines[-1] == f"All of them: {here / 'out/results.csv'}, {here / 'out/report.html'}"
    with Image.open("out/outputs/image/p10.png") as picture:
        assert picture.getpixel((0, 0)) == (252, 245, 235)
    with open("out/results.csv", newline="") as file:
        assert [row["item"] for row in csv.DictReader(file)] == ["p1.png", "p2.png", "p5.png", "p10.png"]
    # The same again does what is not done.
    Image.new("RGB", (8, 6)).save("photos/p5.png")
    content = json.loads(batch(*words, "--json").stdout)
    assert [content[key] for key in ("done", "done_before", "failed")] == [1, 3, 0]
    assert content["results"] == str(here / "out/results.csv")
    (row,) = [row for row in content["items"] if row["item"] == "p5.png"]
    assert (row["state"], row["error"]) == ("done", None)
    assert row["outputs"] == {"image": str(here / "out/outputs/image/p5.png")}
    # Another batch is refused in words of the command line.
    text = batch(write("twice.json", ["invert.json", "invert.json"]), *words[1:], status=1).stderr
    assert "is another one than this command asks for" in text
    assert "--fresh" in text


def test_masks_are_items_and_a_replay_finds_the_pictures_again(here: Path, config: Path) -> None:
    Image.new("RGBA", (8, 6), (200, 10, 10, 51)).save("photos/p1.png")
    made = node("MaskToImage", mask=["1", 0])
    write("mask.json", {"1": port("mask"), "2": made, "3": port("image", ["2", 0])})
    batch("mask.json", "--items", "photos", "--pattern", "p1.png", "-o", "out", "-q", "--config", config)
    with Image.open("out/outputs/image/p1.png") as picture:
        assert picture.getpixel((0, 0)) == (204, 204, 204)

    def replay(*words: Any, status: int = 0) -> Any:
        result = CliRunner().invoke(commands, ["replay", "out", "--config", str(config), *map(str, words)])
        assert result.exit_code == status, result.output
        return result

    assert replay().stdout == "identical: 1 step, 1 value\n"
    Path("photos/p1.png").rename("photos/elsewhere.png")
    told = replay(status=1).stderr
    assert f"'mask', which iteration 0 reads: it was read from {here / 'photos/p1.png'}, which is not there" in told
    assert "--input NAME=FILE" in told
    assert replay("--input", "mask=photos/elsewhere.png").stdout == "identical: 1 step, 1 value\n"


def test_numbers_that_fail_and_are_tried_again_or_not(here: Path, config: Path, log: str) -> None:
    words = [write("refuse.json", refuse(log, 2)), "--items", "@n.txt", "-o", "out"]
    write("n.txt", "1\n2\n3\n")
    words += ["--config", config, "-q"]
    done = batch(*words, status=4)
    assert done.stderr == ""
    assert "2 is refused" in done.stdout
    assert "item-000002  done" in done.stdout
    assert executions(log) == ["check 1", "check 2", "check 3"]
    batch(*words, "--no-retry-failed", status=4)
    assert executions(log) == []
    batch(*words, status=4)
    assert executions(log) == ["check 2"]
    text = batch(*words, "--fresh", "--on-error", "stop", status=1).stderr
    assert "2 is refused" in text


def test_what_an_item_is_the_server_tells_where_a_prompt_does_not(here: Path, config: Path) -> None:
    """A prompt in API format does not say that its port takes a text: 3 must stay one."""
    joined = node("StringConcatenate", string_a=["1", 0], string_b=["1", 0], delimiter="-")
    write("text.json", {"1": port("text"), "2": joined, "3": port("text", ["2", 0])})
    done = batch("text.json", "--items", "@-", "-o", "out", "--json", "--config", config, stdin="3\nä b\n")
    files = [row["outputs"]["text"] for row in json.loads(done.stdout)["items"]]
    assert [Path(file).read_text(encoding="utf-8") for file in files] == ["3-3", "ä b-ä b"]


def test_a_loop_for_each_item(here: Path, config: Path, log: str) -> None:
    words = [write("mix.json", mix(log)), "--items", "@-", "--input-port", "state", "-i", "by=0", "-o", "out"]
    content = json.loads(
        batch(*words, "-n", 9, "--until", "state > 20", "--json", "--config", config, stdin="1\n8\n").stdout
    )
    assert [row["outputs"]["state"] for row in content["items"]] == [27, 24]


def test_ctrl_c_says_how_to_go_on(here: Path, config: Path, log: str, wait_for: Callable[..., Any]) -> None:
    waited = node("RunTestSlow", number=["1", 0], seconds=0.5, log=log)
    write("slow.json", {"1": port("n"), "2": waited, "3": port("n", ["2", 0])})
    write("n.txt", "\n".join(map(str, range(4))))
    words = ["slow.json", "--items", "@n.txt", "-o", "out", "--config", str(config)]
    command = [sys.executable, "-m", "discomfort", "batch", *words]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    wait_for(lambda: Path(log).exists(), 60, "the first item")
    process.send_signal(signal.SIGINT)
    out, told = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, ""), told
    assert "Traceback" not in told
    assert shlex.split(told.rpartition("To go on: ")[2]) == ["python", "-m", "discomfort", "batch", *words]
    assert "4 items: " in batch(*words).stdout
