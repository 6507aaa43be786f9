"""The report of a run: what it says of a record, that nothing in a record can break it, and that it stays small."""

from __future__ import annotations

import base64
import copy
import itertools
import json
import random
import re
import time
from collections.abc import Callable, Iterable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from discomfort.durable.report import build_report
from discomfort.durable.report.charts import TimeScale, downsample, evenly, nice_seconds, nice_step
from discomfort.durable.report.text import duration, figure, size
from discomfort.durable.run_folder import RunRecordFolder, to_line

Json = dict[str, Any]

GB = 2**30
START = 1_772_000_000.0
HOSTILE = "\"><script>alert(1)</script><img src=x onerror='alert(2)'>\x00\u202e\ud800"
VOID = {"meta", "img"}


# --------------------------------------------------------------------------------------------------------- the records


class Journal:
    """A journal, written by hand: each entry some seconds after the one before."""

    def __init__(self) -> None:
        self.entries: list[Json] = []
        self.time = START

    def add(self, kind: str, wait: float = 1.0, /, **fields: Any) -> Journal:
        self.time += wait
        self.entries.append({"t": self.time, "kind": kind, **fields})
        return self

    def session(self, after: float = 0.0, **fields: Any) -> Journal:
        return self.add("session", after, **{"pid": 77, "server": "an embedded server", "steps": 0, **fields})

    def step(self, *path: int, workflow: str = "refine.json", seconds: float = 2.0, **fields: Any) -> Journal:
        return self.add("step", seconds, path=list(path), workflow=workflow, seconds=seconds, **fields)

    def iteration(self, number: int, state: str = "done", after: float = 0.0, **fields: Any) -> Journal:
        return self.add("iteration", after, iteration=number, state=state, **{"seconds": 2.0, **fields})

    def end(self, state: str = "finished", **fields: Any) -> Journal:
        return self.add("end", state=state, **fields)


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., RunRecordFolder]:
    """Writes a record's folder, and opens it."""
    numbers = itertools.count()

    def write(journal: Journal | Iterable[Json], thumbnails: Mapping[str, bytes] | None = None, **manifest: Any) -> Any:
        folder = tmp_path / f"run-{next(numbers)}"
        (folder / "thumbnails").mkdir(mode=0o700, parents=True)
        folder.chmod(0o700)
        known = {"schema": "discomfort.run", "version": 1, "kind": "run", "run_id": "5f" * 16, "created": START}
        (folder / "manifest.json").write_text(json.dumps({**known, **manifest}))
        entries = journal.entries if isinstance(journal, Journal) else journal
        (folder / "run.jsonl").write_bytes(b"".join(map(to_line, entries)))
        for name, content in (thumbnails or {}).items():
            (folder / "thumbnails" / name).write_bytes(content)
        return RunRecordFolder.open(folder)

    return write


def plan(iterations: int | None = None, body: list[Any] | None = None, **more: Any) -> Json:
    steps = [{"workflow": "refine.json", "prompt": "ab" * 32, "file": None}] if body is None else body
    return {"loop": {"iterations": iterations, "condition": None, "body": steps}, **more}


def jpeg(number: int, length: int = 40) -> bytes:
    """What begins like a JPEG."""
    return b"\xff\xd8" + f"{number:08}".encode() + b"\0" * length


# ------------------------------------------------------------------------------------------------------------ the page


class Page(HTMLParser):
    """A page, parsed; it must be well formed."""

    def __init__(self, html: str):
        super().__init__()
        self.html = html
        self.open: list[str] = []
        #: (tag, attributes, the text in it) of all elements
        self.elements: list[tuple[str, dict[str, str], list[str]]] = []
        self._inside: list[int] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.elements.append((tag, {name: value or "" for name, value in attrs}, []))
        if tag not in VOID:
            self.open.append(tag)
            self._inside.append(len(self.elements) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}, []))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag
        self._inside.pop()

    def handle_data(self, data: str) -> None:
        for number in self._inside:
            self.elements[number][2].append(data)

    def find(self, tag: str, class_: str | None = None) -> list[tuple[dict[str, str], str]]:
        """(attributes, text) of the elements of a tag and class."""
        return [
            (attributes, "".join(text))
            for name, attributes, text in self.elements
            if name == tag and (class_ is None or class_ in attributes.get("class", "").split())
        ]

    def texts(self, tag: str, class_: str | None = None) -> list[str]:
        return [text for _, text in self.find(tag, class_)]

    def section(self, title: str) -> str:
        """The text of a section; "" where there is none."""
        found = [text for text in self.texts("section") if text.startswith(title)]
        return found[0] if found else ""

    def tile(self, name: str) -> str:
        """The figure of a tile."""
        found = zip(self.texts("div", "what"), self.texts("div", "figure"), strict=True)
        return dict(found)[name]


def report(record: RunRecordFolder, now: float | None = None) -> Page:
    page = Page(build_report(record, now))
    check_is_closed(page)
    return page


def check_is_closed(page: Page) -> None:
    """Nothing comes from elsewhere, nothing runs."""
    assert not page.find("script")
    assert not re.search(r"https?:|//[a-z]", page.html)
    policy = [attributes["content"] for attributes, _ in page.find("meta") if "http-equiv" in attributes]
    assert policy[0].startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")
    for tag, attributes, _ in page.elements:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        assert attributes.get("src", "data:").startswith("data:image/jpeg;base64,") or tag != "img"
        assert attributes.get("href", "outputs/").startswith("outputs/")


def sections_of(page: Page) -> list[str]:
    return page.texts("h2")


# -------------------------------------------------------------------------------------------------------------- header


@pytest.mark.parametrize(
    ("journal", "words", "goes_on"),
    [
        (Journal().session().step(0).iteration(0).end(), "Finished", False),
        (Journal().session().step(0).end("failed", error={"type": "E", "message": "no"}), "Failed", True),
        (Journal().session().step(0).end("interrupted"), "Interrupted", True),
        (Journal().session().step(0), "Running or died", True),
        (Journal().session().step(0).end("failed").session().step(1), "Running or died", True),
        (Journal(), "Not started", True),
    ],
    ids=["finished", "failed", "interrupted", "open", "open again", "unstarted"],
)
def test_state_and_how_to_go_on(record: Any, journal: Journal, words: str, goes_on: bool) -> None:
    page = report(record(journal, plan=plan(3)))
    assert page.texts("span", "pill") == [words]
    assert ("Run the same script again" in "".join(page.texts("div", "note"))) is goes_on


def test_a_run_without_an_end_says_when_it_was_heard_of(record: Any) -> None:
    journal = Journal().session().step(0)
    assert "1 h 5 min before this report" in "".join(
        report(record(journal), now=journal.time + 3900).texts("div", "note")
    )


def test_the_figures_of_the_header(record: Any) -> None:
    journal = Journal().session()
    died = {"reason": "died", "error": "exit code -9", "action": "restart", "delay": 2.0}
    for number in range(3):
        journal.step(number, 0, retries=[died] if number == 1 else []).iteration(number, seconds=2.0 + number)
    journal.add("step_failed", path=[3], workflow="refine.json", error={"message": "bad"}, attempts=2, retries=[died])
    journal.iteration(3, "skipped", error={"message": "bad"})
    journal.step(4)
    journal.add("recycle", what="server_ram", limit=GB, before=2 * GB, after=GB, action="restarted", seconds=3.0)
    journal.end("interrupted", seconds=90.0)
    journal.session(after=7200.0).iteration(4, after=30.0).end(seconds=30.0)
    page = report(record(journal, plan=plan(10, seed_policy="increment", master_seed=2**63 + 11)))
    assert page.tile("Iterations done") == "4 of 10"
    assert page.tile("Steps") == "4"
    assert page.tile("Time") == "2 min"
    assert page.tile("Iteration, median") == "2.5 s"
    assert page.tile("Retries") == "2"
    assert page.tile("Master seed") == str(2**63 + 11)
    subs = page.texts("div", "sub")
    assert "1 skipped" in subs
    assert "1 failed" in subs
    assert "3 restarts, memory recycled 1\u00d7" in subs
    assert "policy increment" in subs
    assert any(sub.startswith("in 2 sessions over 2 h") for sub in subs)


def test_an_iteration_that_was_tried_again_counts_once(record: Any) -> None:
    journal = Journal().session().step(0).iteration(0, "retried", error={"message": "x"}).step(0).iteration(0).end()
    page = report(record(journal, plan=plan(1)))
    assert page.tile("Iterations done") == "1 of 1"
    assert "done at last" in page.section("Errors")


def test_an_iteration_that_began_and_did_not_end_is_told(record: Any) -> None:
    page = report(record(Journal().session().step(0).iteration(0).step(1), plan=plan(5)))
    assert "1 begun, not ended" in page.texts("div", "sub")


def test_sections_with_nothing_in_them_are_left_out(record: Any) -> None:
    assert sections_of(report(record(Journal().session().step(0).end()))) == ["Timeline", "Sessions"]
    assert sections_of(report(record(Journal()))) == []


def test_a_damaged_journal_is_told(record: Any) -> None:
    whole = record(Journal().session().step(0).step(1).end())
    lines = (whole.path / "run.jsonl").read_bytes().splitlines(keepends=True)
    (whole.path / "run.jsonl").write_bytes(b"".join([lines[0], b"rubbish\n", *lines[2:]]))
    page = report(RunRecordFolder.open(whole.path))
    assert "damaged at line 2" in "".join(page.texts("p", "note"))


# ------------------------------------------------------------------------------------------------------------ hostility


def test_names_from_anywhere_are_text(record: Any) -> None:
    note = {"digest": "xxh3:1", "value": 1.5}
    error = dict.fromkeys(("type", "message", "node_id", "class_type", "title"), HOSTILE)
    journal = Journal().session(
        server=HOSTILE, environment={"comfyui": HOSTILE, "packs": {HOSTILE: {"version": HOSTILE}}}
    )
    journal.entries[-1]["models"] = [{"name": HOSTILE, "folder": HOSTILE, "size": 5, "sha256": HOSTILE}]
    journal.step(0, workflow=HOSTILE, writes={HOSTILE: note}, cached=[HOSTILE])
    journal.step(1, workflow=HOSTILE, writes={HOSTILE: {"digest": "xxh3:2", "value": 2.5}})
    retry = {"reason": HOSTILE, "action": HOSTILE, "error": HOSTILE, "delay": 1.0}
    journal.add("step_failed", path=[2], workflow=HOSTILE, error=error, retries=[retry])
    journal.iteration(2, "skipped", item=HOSTILE, error=error, collected={HOSTILE: note}, files={HOSTILE: [HOSTILE]})
    journal.add("recycle", what=HOSTILE, action=HOSTILE, before=1, after=1)
    journal.end(HOSTILE, error=error)
    body = [
        {"workflow": HOSTILE, "prompt": HOSTILE},
        {"branch": {"condition": HOSTILE, "then": [], "otherwise": [{"workflow": HOSTILE}]}},
        {"loop": {"iterations": 2, "condition": {"function": HOSTILE}, "body": []}},
    ]
    page = report(
        record(
            journal,
            {"xxh3-1.jpg": jpeg(1)},
            kind="batch",
            run_id=HOSTILE,
            discomfort=HOSTILE,
            plan=plan(3, body, collect=[HOSTILE], seed_policy=HOSTILE, per_iteration={HOSTILE: {"function": HOSTILE}}),
            inputs={HOSTILE: {"digest": HOSTILE, "dtype": HOSTILE, "shape": [HOSTILE]}, "text": {"value": HOSTILE}},
            options={HOSTILE: HOSTILE},
        )
    )
    assert "\x00" not in page.html
    assert "\u202e" not in page.html
    page.html.encode("utf-8")
    assert "<script>alert(1)</script>" in page.section("Plan")
    assert "<script>alert(1)</script>" in page.section("Errors")
    assert len(page.find("img")) == 2  # thumbnails


def test_very_long_names_are_cut(record: Any) -> None:
    name = "<" * 100_000
    journal = Journal().session(server=name).step(0, workflow=name, writes={name: {"value": 1}})
    journal.add("step_failed", path=[1], workflow=name, error={"message": name}).end("failed", error={"message": name})
    page = report(record(journal, plan=plan(1, [{"workflow": name}]), inputs={name: {"value": name}}))
    assert len(page.html) < 100_000


ODD = [None, True, -1, 1e308, 10**400, "", "x", [], [None], [[1]], {}, {"x": None}, [{"x": 1}], {"value": [1]}]


def test_a_record_with_odd_fields_makes_a_report(record: Any) -> None:
    """Whatever stands where something else should: what is odd is left out, the rest is told."""
    chance = random.Random(11)
    error = {"type": "E", "message": "m", "node_id": "3", "class_type": "K", "title": "t"}
    for _ in range(60):
        journal = Journal().session(
            environment={"python": "3", "packs": {"a": {"version": "1"}}, "device": [{"name": "g"}]}
        )
        journal.entries[-1]["models"] = [{"folder": "f", "name": "n", "size": 4, "modified": START}]
        journal.add("input", path=[0], name="amount", value={"digest": "d", "value": 1})
        memory = {"server_private": GB, "vram_total": 8 * GB, "vram_free": GB, "context_ram": 5}
        retries = [{"reason": "died", "action": "restart", "delay": 1.0, "error": "e"}]
        journal.step(0, writes={"a": {"digest": "xxh3:1", "value": 2}}, memory=memory, retries=retries, cached=["1"])
        journal.add("step_failed", path=[1], workflow="w", error=error, retries=retries, seconds=1.0)
        journal.iteration(
            1, "skipped", error=error, item="key", files={"a": ["outputs/a/1.png"]}, collected={"a": {"value": 3}}
        )
        journal.add("recycle", what="vram", limit=GB, before=2 * GB, after=GB, action="freed", seconds=1.0)
        journal.end("failed", error=error, seconds=3.0)
        manifest: Json = {
            "kind": "batch",
            "plan": plan(
                3, [{"branch": {"condition": "a", "then": [{"workflow": "w"}]}}], collect=["a"], per_iteration={}
            ),
            "inputs": {"a": {"digest": "d", "object": 4, "shape": [1], "dtype": "float32"}},
            "options": {"max_vram_gb": 3, "max_server_ram_gb": 2},
            "created": START,
        }
        for target in [*chance.sample(journal.entries, 4), manifest, manifest["plan"], manifest["plan"]["loop"]]:
            spoil(target, chance)
        report(record(journal, {"xxh3-1.jpg": jpeg(1)}, **manifest), now=START)


def spoil(target: Json, chance: random.Random) -> None:
    """Put something odd into one place of JSON data."""
    key = chance.choice(sorted(target.keys() - {"kind"} or target))
    if isinstance(target[key], dict) and target[key] and chance.random() < 0.6:
        spoil(target[key], chance)
    else:
        target[key] = copy.deepcopy(chance.choice(ODD))


# ------------------------------------------------------------------------------------------------------------- timeline


def test_bars_of_steps_have_their_place_colour_and_words(record: Any) -> None:
    journal = Journal().session()
    journal.step(0, workflow="one.json", seconds=10.0, server_seconds=9.0, cached=["4", "5"], attempts=2)
    journal.step(0, workflow="two.json", seconds=30.0)
    journal.add("step_failed", 60.0, path=[1], workflow="two.json", error={"message": "out of <memory>"}, seconds=60.0)
    page = report(record(journal.end("failed")))
    (one, told), *_ = page.find("rect", "c0")
    assert (one["x"], one["width"]) == ("0%", "9.9%")
    assert told.startswith("iteration 0: one.json\ndone, 10 s (9 s on the server)\n2 nodes from the cache\n2 attempts")
    (two, _), *_ = page.find("rect", "c1")
    assert (two["x"], two["width"]) == ("9.9%", "29.7%")
    (failed, told), *_ = page.find("rect", "failed")
    assert (failed["x"], failed["width"]) == ("39.6%", "59.41%")
    assert "out of <memory>" in told
    assert page.texts("text", "name") == ["one.json", "two.json"]


def test_skipped_iterations_retries_recycles_and_early_ends_are_marked(record: Any) -> None:
    journal = Journal().session().step(0, retries=[{"reason": "hung", "action": "restart"}]).iteration(0)
    journal.iteration(1, "skipped", after=4.0)
    journal.add("recycle", 5.0, what="vram", before=9 * GB, after=3 * GB, limit=8 * GB, action="freed", seconds=0.5)
    page = report(record(journal.end("interrupted")))
    titles = "\n".join(page.texts("svg", "at"))
    assert "Retry, iteration 0, refine.json: the server hung, server restarted" in titles
    assert "Recycled, VRAM: 9 GB before, 3 GB after; memory freed" in titles
    assert "Interrupted" in titles
    assert len(page.find("rect", "skipped")) == 1
    assert [len(page.find("path", kind)) for kind in ("retry", "recycle", "end")] == [2, 2, 2]  # and in the legend


def test_pauses_between_sessions_are_narrow_and_told(record: Any) -> None:
    journal = Journal().session().step(0, seconds=100.0).session(after=50_000.0).step(1, seconds=100.0).end()
    page = report(record(journal))
    [(pause, told)] = page.find("rect", "pause")
    assert pause["width"] == "2%"
    assert told == "Session 2 begins, 13 h 53 min after the last word of the one before"
    assert "died" in page.section("Sessions")


def test_a_clock_that_was_set_back_harms_nothing() -> None:
    scale = TimeScale([(100.0, 200.0), (50.0, 150.0)])
    assert [scale.place(0, 100.0), scale.place(0, 200.0)] == [0.0, 49.0]
    assert [scale.place(1, 20.0), scale.place(1, 50.0), scale.place(1, 500.0)] == [51.0, 51.0, 100.0]
    assert TimeScale([(5.0, 5.0)]).ticks() == []


def test_rows_are_bounded_however_many_workflows_there_are(record: Any) -> None:
    journal = Journal().session()
    for number in range(30):
        journal.step(number, workflow=f"w{number}.json")
    assert "20 other workflows" in report(record(journal.end())).texts("text", "name")


# ------------------------------------------------------------------------------------------------------------- pictures


def test_thumbnails_are_embedded_in_order_with_their_labels(record: Any) -> None:
    journal = Journal().session()
    for number in range(3):
        written = {"image": {"digest": f"xxh3:{number}", "object": 9}, "mask": {"digest": "xxh3:none", "object": 9}}
        journal.step(number, writes=written)
        journal.iteration(
            number, collected={"image": written["image"]}, files={"image": [f"outputs/im age/{number}.png"]}
        )
    page = report(record(journal.end(), {f"xxh3-{number}.jpg": jpeg(number) for number in range(3)}))
    pictures = [attributes for attributes, _ in page.find("img")]
    assert [p["src"] for p in pictures] == [
        "data:image/jpeg;base64," + base64.b64encode(jpeg(number)).decode() for number in range(3)
    ]
    assert [p["alt"] for p in pictures] == [f"image, iteration {number}" for number in range(3)]
    assert page.texts("figcaption")[:3] == ["0", "1", "2"]
    assert [a["href"] for a, _ in page.find("a")] == [f"outputs/im%20age/{number}.png" for number in range(3)]


def test_pictures_of_a_batch_have_the_keys_of_its_items(record: Any) -> None:
    journal = (
        Journal().session().step(0, writes={"image": {"digest": "xxh3:0"}}).iteration(0, item="photos/cat.jpg").end()
    )
    page = report(record(journal, {"xxh3-0.jpg": jpeg(0)}, kind="batch"))
    assert [attributes["alt"] for attributes, _ in page.find("img")] == ["image, photos/cat.jpg"]
    assert page.texts("figcaption") == ["cat.jpg"]


def test_the_only_iteration_of_an_item_is_not_told(record: Any) -> None:
    """In a batch a path begins with the item; the plan's iterations are those of each item."""
    journal = Journal().session().step(0, 0, writes={"score": {"value": 1}}).iteration(0, item="a.jpg")
    journal.step(1, 0, writes={"score": {"value": 2}}).iteration(1, item="b.jpg").end()
    page = report(record(journal, kind="batch", plan=plan(1)))
    assert page.tile("Items done") == "2"
    assert [told.partition(":")[0] for told in page.texts("rect", "c0")] == ["a.jpg", "b.jpg"]
    assert "min 1 (0) \u00b7 max 2 (1)" in page.section("Values")
    assert "For each itemOncerefine.json" in page.section("Plan")
    page = report(record(journal, kind="batch", plan=plan(4)))
    assert [told.partition(":")[0] for told in page.texts("rect", "c0")] == ["a.jpg, 0", "b.jpg, 0"]


def test_sixty_pictures_are_chosen_evenly_among_ports(record: Any) -> None:
    journal = Journal().session()
    for number in range(200):
        few = {"mask": {"digest": f"xxh3:{number}"}} if number < 5 else {}
        journal.step(number, writes={"image": {"digest": f"xxh3:{number}"}, **few})
    page = report(record(journal.end(), {f"xxh3-{number}.jpg": jpeg(number) for number in range(200)}))
    names = [attributes["alt"] for attributes, _ in page.find("img")]
    assert len(names) == 60
    assert [name for name in names if name.startswith("mask")] == [f"mask, iteration {number}" for number in range(5)]
    images = [name for name in names if name.startswith("image")]
    assert (images[0], images[-1]) == ("image, iteration 0", "image, iteration 199")
    assert "55 of 200" in page.section("Pictures")


def test_what_is_no_small_jpeg_is_no_thumbnail(record: Any) -> None:
    notes = {name: {"digest": name} for name in ("svg", "huge", "../run", "good")}
    thumbnails = {"svg.jpg": b"<svg onload='x'/>", "huge.jpg": jpeg(0, 300_000), "good.jpg": jpeg(1)}
    page = report(record(Journal().session().step(0, writes=notes).end(), thumbnails))
    assert [attributes["alt"] for attributes, _ in page.find("img")] == ["good, iteration 0"]


def test_large_thumbnails_make_fewer_pictures(record: Any) -> None:
    journal = Journal().session()
    for number in range(60):
        journal.step(number, writes={"image": {"digest": f"xxh3:{number}"}})
    page = report(record(journal.end(), {f"xxh3-{number}.jpg": jpeg(number, 150_000) for number in range(60)}))
    assert 5 <= len(page.find("img")) <= 10
    assert len(page.html) < 2_500_000


@pytest.mark.parametrize(
    "file", ["/etc/passwd", "outputs/../../x", "javascript:alert(1)", "C:\\x", "other/x.png", 5, ""]
)
def test_only_files_among_the_outputs_are_linked(record: Any, file: Any) -> None:
    journal = Journal().session().step(0, writes={"image": {"digest": "xxh3:0"}})
    journal.iteration(0, item="key", collected={"image": {"digest": "xxh3:0"}}, files={"image": [file]})
    page = report(record(journal.end(), {"xxh3-0.jpg": jpeg(0)}, kind="batch"))
    assert len(page.find("img")) == 1
    assert page.find("a") == []


# --------------------------------------------------------------------------------------------------- numbers and memory


def test_ports_with_numbers_have_a_chart_each(record: Any) -> None:
    journal = Journal().session()
    for number in range(5):
        journal.add("input", 0.0, path=[number], name="amount", value={"digest": "d", "value": 0.5 - number / 10})
        notes = {
            "score": {"value": number * number},
            "ok": {"value": True},
            "text": {"value": "5"},
            "fixed": {"value": 7},
        }
        journal.step(number, writes=notes)
        journal.iteration(number, collected={"score": {"value": number * number}, "late": {"value": -number}})
    page = report(record(journal.end()))
    values = page.section("Values")
    assert page.texts("figcaption") == ["scorelast 16", "latelast -4", "amountlast 0.1", "fixedlast 7"]
    assert "min 0 (0) \u00b7 max 16 (4)" in values
    assert "the same 5 times" in values
    assert page.texts("circle", "c0") == [f"iteration {number}: {number * number}" for number in range(5)]


def test_charts_are_twelve_at_most_those_that_change_first(record: Any) -> None:
    journal = Journal().session()
    for number in range(2):
        journal.step(number, writes={f"p{port:02}": {"value": port + number * (port > 7)} for port in range(20)})
    page = report(record(journal.end()))
    assert len(page.find("figcaption")) == 12
    assert page.texts("figcaption")[0].startswith("p08")
    assert "8 more ports with numbers" in page.section("Values")


def test_a_peak_survives_the_downsampling() -> None:
    values = [0.0] * 100_000
    values[77_777], values[3] = 9.0, -5.0
    kept = downsample(values, float)
    assert len(kept) <= 800
    assert (max(kept), min(kept)) == (9.0, -5.0)
    assert downsample(values[:700], float) == values[:700]
    order = downsample(range(5000), lambda n: (n * 37) % 101)
    assert order == sorted(order)
    assert (order[0], order[-1]) == (0, 4999)


def test_memory_over_time_with_ceilings_and_recycles(record: Any) -> None:
    journal = Journal().session()
    for number in range(4):
        memory = {"server_rss": 9 * GB, "server_private": (2 + number) * GB, "context_ram": GB, "context_disk": GB // 2}
        memory |= {
            "orchestrator_rss": GB // 4,
            "vram_total": 8 * GB,
            "vram_free": (5 - number) * GB,
            "ram_total": 64 * GB,
        }
        journal.step(number, memory=memory)
    journal.add("recycle", what="server_ram", limit=5 * GB, before=5 * GB, after=GB, action="restarted", seconds=1.0)
    page = report(record(journal.end(), options={"max_server_ram_gb": 5.5, "max_vram_gb": 7}))
    text = page.section("Memory")
    assert "server: peak 5 GB, last 5 GB" in text
    assert "the run's values (memory and disk): peak 1.5 GB" in text
    assert "VRAM in use: peak 6 GB, last 6 GB" in text
    assert page.texts("text", "levelname") == ["ceiling 5.5 GB", "ceiling 7 GB"]
    assert len(page.find("line", "upright")) == 1
    assert "server's memory" in page.section("Memory recycled")


# --------------------------------------------------------------------------------------------------------------- tables


def test_errors_are_told_once_with_what_came_of_them(record: Any) -> None:
    error = {
        "type": "ValueError",
        "message": "no face found",
        "node_id": "7",
        "class_type": "Detect",
        "title": "Find it",
    }
    wrapped = {"type": "StepError", "message": "refine.json, iteration 1: no face found"}
    journal = Journal().session().add("step_failed", path=[0, 2], workflow="refine.json", error=error)
    journal.iteration(0, "skipped", error=error)
    journal.add("step_failed", path=[1], workflow="refine.json", error=error).end("failed", error=wrapped)
    text = report(record(journal)).section("Errors")
    assert text.count("no face found") == 2
    assert "#7 Detect (Find it)" in text
    assert text.index("skipped") < text.index("the run ended")
    stopped = Journal().session().step(0).end("interrupted", error={"type": "RunInterrupted", "message": "Ctrl-C"})
    assert report(record(stopped)).section("Errors") == ""


def test_items_of_a_batch_the_first_and_those_that_failed(record: Any) -> None:
    journal = Journal().session()
    for number in range(3000):
        is_bad = number % 3 == 2
        error = {"message": f"bad {number}"} if is_bad else None
        journal.iteration(number, "skipped" if is_bad else "done", 0.1, item=f"item-{number}", error=error)
    page = report(record(journal.end(), kind="batch", plan=plan(1)))
    text = page.section("Items")
    assert page.tile("Items done") == "2,000"
    assert "item-499" in text
    assert "item-500skipped" in text
    assert "item-501" not in text
    assert "bad 1499" in text  # the five-hundredth
    assert "more in run.jsonl" in text


def test_plan_inputs_environment_and_models_are_listed(record: Any) -> None:
    environment = {"comfyui": "0.3.64", "device": [{"name": "GPU", "type": "cuda", "vram_total": 24 * GB}]}
    environment["packs"] = {"a pack": {"version": "1.4", "commit": "f00ba47e"}}
    journal = Journal().session(environment=environment, models=[{"folder": "vae", "name": "v.pt", "size": 3 * 2**20}])
    journal.step(0).end("interrupted").session(environment={**environment, "comfyui": "0.3.65"}, models=[]).end()
    body = [
        {"workflow": "draw.json", "prompt": "cd" * 32},
        {"branch": {"condition": "score < 1", "then": [{"workflow": "again.json"}], "otherwise": []}},
        {"loop": {"iterations": None, "condition": {"function": "script.enough", "code": {}}, "body": []}},
    ]
    page = report(
        record(
            journal,
            plan=plan(20, body, collect=["image"], per_iteration={"prompt": {"length": 20, "values": "ef" * 32}}),
            inputs={
                "image": {"digest": "xxh3:1", "object": 3 * 2**20, "dtype": "float32", "shape": [1, 8, 8, 3]},
                "key": {"secret": True},
                "style": {"digest": "xxh3:2", "value": "oil"},
            },
            options={"on_error": "skip", "retry": 3, "unset": None},
        )
    )
    text = page.section("Plan")
    for words in (
        "20 times",
        "draw.json cdcdcdcdcdcd",
        "If score < 1",
        "again.json",
        "Again and again while script.enough()",
    ):
        assert words in text
    assert "on_errorskip" in text
    assert "unset" not in text
    inputs = page.section("Inputs")
    for words in (
        "float32, 1 \u00d7 8 \u00d7 8 \u00d7 3, 3 MB",
        "secret, not recorded",
        "oil",
        "in each iteration, 20 values",
    ):
        assert words in inputs
    text = page.section("Environment")
    assert "GPU (cuda, 24 GB)" in text
    assert "a pack" in text
    assert "Session 2: comfyui: was '0.3.64', is '0.3.65'" in text
    assert "v.pt" in page.section("Models")


def test_a_plan_that_is_nested_without_end_is_cut(record: Any) -> None:
    deep: Json = {"workflow": "w"}
    for _ in range(300):
        deep = {"loop": {"iterations": 2, "condition": None, "body": [deep]}}
    page = report(record(Journal(), plan={"loop": deep["loop"]}))
    assert "..." in page.section("Plan")


# -------------------------------------------------------------------------------------------------------- how large


def test_ten_thousand_iterations_make_a_small_page_quickly(record: Any) -> None:
    journal = Journal().session()
    chance = random.Random(3)
    retry = {"reason": "died", "action": "restart", "error": "e" * 200, "delay": 1.0}
    for number in range(10_000):
        for step in range(3):
            memory = {"server_private": chance.randrange(GB), "vram_total": GB, "vram_free": chance.randrange(GB)}
            notes = {f"port{port}": {"digest": "d", "value": chance.random()} for port in range(4)}
            retries = [retry] if chance.random() < 0.05 else []
            journal.step(number, workflow=f"w{step}.json", writes=notes, memory=memory, retries=retries)
        error = {"message": "<bad> " * 100} if number % 10 == 0 else None
        journal.iteration(number, "skipped" if error else "done", item=f"item-{number}", error=error)
        if number % 20 == 0:
            journal.add("recycle", what="vram", limit=1, before=1, after=0, action="freed", seconds=0.5)
        if number % 1000 == 999:
            journal.session(after=100.0)
    opened = record(Journal(), kind="batch", plan=plan(10_000))
    opened.entries = journal.end().entries  # writing and reading them takes longer than the rest
    began = time.process_time()
    html = build_report(opened)
    # Two seconds or so; machines that run tests are slow.
    assert time.process_time() - began < 10
    assert len(html) < 3_000_000
    page = Page(html)
    assert len(page.elements) < 20_000
    assert len(page.find("rect")) < 4000
    assert len(page.find("svg", "at")) < 250
    assert all(attributes["d"].count("L") <= 800 for attributes, _ in page.find("path", "line"))


def test_a_thousand_sessions_have_room(record: Any) -> None:
    journal = Journal()
    for number in range(1000):
        journal.session(after=60.0).step(number).end("interrupted")
    page = report(record(journal))
    assert len(page.html) < 1_000_000
    assert page.tile("Steps") == "1,000"


# ------------------------------------------------------------------------------------------------------- for people


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.0042, "4.2 ms"),
        (0.34, "340 ms"),
        (0.9999, "1 s"),
        (3.21, "3.2 s"),
        (42.4, "42 s"),
        (59.7, "1 min"),
        (725, "12 min 5 s"),
        (3599.6, "1 h"),
        (4320, "1 h 12 min"),
        (86399, "1 d"),
        (183600, "2 d 3 h"),
        (-4, "-4 s"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1024, "1 KB"), (1.2 * GB, "1.2 GB"), (345 * 2**20, "345 MB"), (1023.9 * GB, "1 TB")],
)
def test_sizes(count: float, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2**64, str(2**64)),
        (0.123456, "0.1235"),
        (1234.5678, "1234.57"),
        (5.0, "5"),
        (10**40, "1e+40"),
        (-1e-9, "-1e-09"),
    ],
)
def test_figures(value: float, text: str) -> None:
    assert figure(value) == text


def test_steps_of_axes_are_round() -> None:
    assert [nice_step(span) for span in (0, 1, 10, 37, 4000)] == [1.0, 0.5, 5.0, 10.0, 1000.0]
    assert [nice_seconds(span, 5) for span in (1, 50, 700, 40_000, 900_000)] == [0.2, 10, 300, 10_800, 432_000]


def test_chosen_evenly() -> None:
    assert evenly(range(100), 3) == [0, 50, 99]
    assert evenly(range(3), 5) == [0, 1, 2]
    assert evenly(range(9), 1) == [8]
    assert evenly(range(9), 0) == []
