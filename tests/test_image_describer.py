"""DiscomfortImageDescriber: what is sent, what comes back, what endpoints may do wrong, and where the key never is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from discomfort.editor_nodes import describing, endpoint_access
from discomfort.editor_nodes.describer_answers import DescribingError, Limits, Question, usage_text
from discomfort.editor_nodes.endpoint_access import AccessError, decide, open_access
from discomfort.editor_nodes.image_describer import DiscomfortImageDescriber
from fake_openai import FakeOpenAI, Reply, Request
from outer_server import OuterServer, outer_server
from pack_server import SERVERS

# What looks like a provider's key, and what does not: secrecy must not hang on a key's looks.
KEY = "sk-proj-Abc123Def456Ghi789Jkl012"
PLAIN_KEY = "correct-horse-battery-staple"
SECOND_KEY = "second-secret-of-the-settings"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """An environment without keys and proxies; call it with a list of allowed endpoints."""
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "DISCOMFORT_ALLOWED")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    return lambda allowed: monkeypatch.setenv("DISCOMFORT_ALLOWED_ENDPOINTS", allowed)


def colours(*levels: float, size: tuple[int, int] = (24, 32)) -> torch.Tensor:
    """A batch of plain grey pictures, one of each level."""
    return torch.stack([torch.full((*size, 3), level) for level in levels])


def ask(fake: FakeOpenAI, image: Any = None, **inputs: Any) -> tuple[list[str], str, dict[str, Any]]:
    """The node's outputs, usage as data; quick by default."""
    values: dict[str, Any] = {
        "prompt": "What is it?", "model": "m", "base_url": fake.url, "key_name": "OPENAI_API_KEY",
        "mode": "one text per image", "detail": "auto", "max_side": 0, "max_tokens": 0, "temperature": -1.0, "seed": 0,
        "retries": 0, "timeout": 5.0, "concurrency": 4, **inputs,
    }  # fmt: skip
    image = colours(0.5) if image is None else image
    texts, joined, usage = DiscomfortImageDescriber().describe(image, **values)
    return texts, joined, json.loads(usage)


def level(request: Request) -> int:
    """The grey level of the first picture of a request, of 255."""
    return int(request.pictures[0].convert("L").getpixel((3, 3)))


def test_input_names_and_order_are_those_that_saved_workflows_hold() -> None:
    inputs = DiscomfortImageDescriber.INPUT_TYPES()
    assert list(inputs["required"]) == [
        "image", "prompt", "model", "base_url", "key_name", "mode", "detail", "max_side", "max_tokens", "temperature",
        "seed", "retries", "timeout", "concurrency",
    ]  # fmt: skip
    assert list(inputs["optional"]) == ["system_prompt"]
    assert DiscomfortImageDescriber.RETURN_NAMES == ("text", "all_texts", "usage")


# ---- what is sent, and what comes back ----


def test_prompt_model_and_settings_arrive_as_given(environment: Any) -> None:
    with FakeOpenAI() as fake:
        texts, joined, usage = ask(
            fake, prompt=" Ein Bär?\n\"'{}", model="llava:7b", detail="high", max_tokens=77, temperature=0.25, seed=5,
            system_prompt="Be brief.",
        )  # fmt: skip
    (request,) = fake.requests
    assert (texts, joined) == (["A picture."], "A picture.")
    assert usage == {
        "requests": 1, "prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13, "models": ["llava:7b"],
        "finish_reasons": ["stop"],
    }  # fmt: skip
    assert request.path == "/v1/chat/completions"
    assert request.prompt == " Ein Bär?\n\"'{}"
    assert request.json["messages"][0] == {"role": "system", "content": "Be brief."}
    assert request.content[1]["image_url"]["detail"] == "high"
    sent = {name: request.json[name] for name in ("model", "max_tokens", "temperature", "seed")}
    assert sent == {"model": "llava:7b", "max_tokens": 77, "temperature": 0.25, "seed": 5}


def test_what_the_endpoint_decides_is_not_sent(environment: Any) -> None:
    with FakeOpenAI() as fake:
        ask(fake, system_prompt=" ")
    assert set(fake.requests[0].json) == {"model", "messages"}
    assert len(fake.requests[0].json["messages"]) == 1
    assert set(fake.requests[0].content[1]["image_url"]) == {"url"}


@pytest.mark.parametrize(
    ("origin", "name"),
    [("https://api.openai.com", "max_completion_tokens"), ("https://a.openai.azure.com", "max_completion_tokens"),
     ("https://notopenai.com", "max_tokens"), ("http://localhost:1234", "max_tokens")],
)  # fmt: skip
def test_the_limit_of_tokens_has_the_name_that_the_endpoint_knows(origin: str, name: str) -> None:
    body = describing.request_body([], Question("p", "m", max_tokens=9), origin)
    assert {key: value for key, value in body.items() if "tokens" in key} == {name: 9}


def test_the_pixels_arrive(environment: Any) -> None:
    image = torch.zeros(1, 40, 60, 3)
    image[:, :20, :30] = torch.tensor([1.0, 0.0, 0.0])
    image[:, 20:, 30:] = torch.tensor([0.0, 0.5, 1.0])
    with FakeOpenAI() as fake:
        ask(fake, image)
    (picture,) = fake.requests[0].pictures
    assert fake.requests[0].content[1]["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert (picture.format, picture.size) == ("JPEG", (60, 40))
    for place, expected in (((10, 10), (255, 0, 0)), ((50, 30), (0, 128, 255)), ((50, 10), (0, 0, 0))):
        assert max(abs(a - b) for a, b in zip(picture.getpixel(place), expected, strict=True)) < 12


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (torch.full((1, 8, 8, 1), 0.5), 128),
        (torch.cat([torch.zeros(1, 8, 8, 3), torch.full((1, 8, 8, 1), 0.25)], dim=-1), 191),
        (torch.full((1, 8, 8, 3), float("nan")), 0),
        (torch.full((1, 8, 8, 3), 7.0), 255),
        (torch.full((1, 8, 8, 3), 0.5, dtype=torch.float16), 128),
        (torch.full((1, 3, 8, 8), 0.5, requires_grad=True).movedim(1, -1), 128),
    ],
    ids=["grey", "transparent", "nan", "too bright", "half", "strided"],
)
def test_every_kind_of_image_arrives(environment: Any, image: torch.Tensor, expected: int) -> None:
    with FakeOpenAI() as fake:
        ask(fake, image)
    assert abs(level(fake.requests[0]) - expected) <= 2


@pytest.mark.parametrize(("max_side", "size"), [(0, (300, 100)), (400, (300, 100)), (150, (150, 50)), (1, (1, 1))])
def test_pictures_are_scaled_down_and_never_up(environment: Any, max_side: int, size: tuple[int, int]) -> None:
    with FakeOpenAI() as fake:
        ask(fake, colours(0.5, size=(100, 300)), max_side=max_side)
    assert fake.requests[0].pictures[0].size == size


@pytest.mark.parametrize("shape", [(0, 8, 8, 3), (1, 8, 8, 2), (1, 0, 8, 3), (8, 8, 3)])
def test_what_is_no_picture_is_refused_by_its_shape(environment: Any, shape: tuple[int, ...]) -> None:
    with FakeOpenAI() as fake, pytest.raises(DescribingError, match=r"shape \["):
        ask(fake, torch.zeros(shape))
    assert fake.requests == []


def test_texts_are_in_the_order_of_the_images_whichever_comes_first(environment: Any) -> None:
    levels = [0.9, 0.1, 0.7, 0.3, 0.5, 0.2]
    # The first ones are answered last.
    slow = Reply(text=lambda r: f"level {level(r)}", delay=lambda r: level(r) / 1000)
    with FakeOpenAI(default=slow) as fake:
        texts, joined, usage = ask(fake, colours(*levels), concurrency=3)
    assert [abs(int(text.split()[1]) - 255 * wanted) < 3 for text, wanted in zip(texts, levels, strict=True)] == [
        True
    ] * 6
    assert joined == "\n\n".join(texts)
    assert usage["total_tokens"] == 6 * 13
    assert fake.most_open == 3


def test_a_batch_is_one_request(environment: Any) -> None:
    with FakeOpenAI() as fake:
        texts, _, usage = ask(fake, colours(0.0, 0.5, 1.0), mode="one text for the batch")
    (request,) = fake.requests
    assert (texts, usage["requests"]) == (["A picture."], 1)
    found = [picture.convert("L").getpixel((3, 3)) for picture in request.pictures]
    assert [round(value / 127.5) for value in found] == [0, 1, 2]


def test_no_more_pictures_are_encoded_than_requests_go_on(environment: Any, wait_for: Any) -> None:
    encoded: list[int] = []

    class Image:
        shape = (8, 8, 3)

        def detach(self) -> torch.Tensor:
            encoded.append(1)
            return torch.zeros(self.shape)

    def look() -> None:
        if len(fake.requests) == 2:
            raise KeyboardInterrupt

    access = decide("http://localhost/v1", "", {}, lambda _: None)
    with FakeOpenAI(default=Reply(hangs=True)) as fake:
        access = decide(fake.url, "", {}, lambda _: None)
        with pytest.raises(KeyboardInterrupt):
            describing.describe(
                [[Image()] for _ in range(20)], Question("p", "m"), Limits(0, 0, 9.0, 2), access, look, lambda _: None
            )
    assert len(encoded) == 2


def test_progress_is_told_image_by_image(environment: Any) -> None:
    told: list[int] = []
    with FakeOpenAI(default=Reply(delay=0.25)) as fake:
        access = decide(fake.url, "", {}, lambda _: None)
        groups = describing.groups_of(colours(0.1, 0.2, 0.3), describing.PER_IMAGE)
        describing.describe(groups, Question("p", "m"), Limits(0, 0, 9.0, 1), access, lambda: None, told.append)
    assert told[-1] == 3
    assert told == sorted(told)
    assert len(told) >= 3


def test_text_in_parts_is_put_together(environment: Any) -> None:
    parts = [{"type": "text", "text": "One, "}, {"type": "text", "text": "two."}]
    with FakeOpenAI(Reply(text=parts)) as fake:
        assert ask(fake)[0] == ["One, two."]


def test_a_cut_off_text_is_given_and_told(environment: Any, caplog: pytest.LogCaptureFixture) -> None:
    with FakeOpenAI(Reply(finish_reason="length", text="A pic")) as fake:
        texts, _, usage = ask(fake, max_tokens=2)
    assert (texts, usage["finish_reasons"]) == (["A pic"], ["length"])
    assert "max_tokens (2)" in caplog.text


def test_usage_is_null_where_the_endpoint_does_not_count() -> None:
    from discomfort.editor_nodes.describer_answers import Description

    assert json.loads(usage_text([Description("t", "stop", "m")]))["total_tokens"] is None


# ---- what an endpoint may do wrong ----


def test_rate_limits_are_waited_out_as_long_as_asked(environment: Any) -> None:
    with FakeOpenAI(Reply(429, headers={"Retry-After": "1"}), Reply(429, headers={"Retry-After": "0.2"})) as fake:
        assert ask(fake, retries=2)[0] == ["A picture."]
    first, second, third = (request.at for request in fake.requests)
    assert second - first >= 1.0
    assert 0.2 <= third - second < 1.0


@pytest.mark.parametrize(
    "reply", [Reply(500), Reply(503), Reply(429), Reply(drops=True)], ids=["500", "503", "429", "cut"]
)
def test_what_may_work_the_next_time_is_tried_again(environment: Any, reply: Reply) -> None:
    with FakeOpenAI(reply) as fake:
        assert ask(fake, retries=1)[0] == ["A picture."]
    assert len(fake.requests) == 2
    assert fake.requests[0].json == fake.requests[1].json


def test_retries_start_anew_for_each_image(environment: Any) -> None:
    with FakeOpenAI(Reply(500), Reply(), Reply(500)) as fake:
        assert len(ask(fake, colours(0.2, 0.4), retries=1, concurrency=1)[0]) == 2
    assert len(fake.requests) == 4


@pytest.mark.parametrize(
    ("reply", "inputs", "attempts", "words"),
    [
        (Reply(429, message="slow down", headers={"Retry-After": "0.1"}), {"retries": 1}, 2,
         ["limits how much", "retries (1)", "wait 0.1 s", "concurrency", "slow down"]),
        (Reply(429, message="pay", error={"code": "insufficient_quota"}), {}, 1, ["no credit left", "pay"]),
        (Reply(429, headers={"Retry-After": "9999"}), {}, 1, ["wait 9999 s"]),
        (Reply(401, message="bad key"), {}, 1, ["refused the key (401)", "No key was sent", "bad key"]),
        (Reply(403), {}, 1, ["refused the key (403)"]),
        (Reply(404, message="try pulling it"), {"model": "lava"}, 1, ["no model 'lava'", "/v1", "try pulling it"]),
        (Reply(413), {}, 1, ["too large", "max_side"]),
        (Reply(400, message="unknown field: detail"), {"detail": "low"}, 1, ["field: detail", "Set detail to auto"]),
        (Reply(400, message="'temperature' must be 1"), {"temperature": 0.5}, 1, ["Set temperature to -1"]),
        (Reply(400, message="max_tokens: too many"), {"max_tokens": 9}, 1, ["Change max_tokens"]),
        (Reply(422, message="seed?"), {"seed": 9}, 1, ["Set seed to 0"]),
        (Reply(500, message="oops"), {"retries": 1}, 2, ["failed (500)", "retries (1)", "oops"]),
        (Reply(307, headers={"Location": "/elsewhere"}), {}, 1, ["elsewhere", "base_url"]),
        (Reply(hangs=True), {"timeout": 0.3, "retries": 1}, 2, ["timeout (0.3 s), 2 times"]),
        (Reply(drops=True), {"retries": 1}, 2, ["no connection", "2 times"]),
        (Reply(body=b'{"choices": [', ), {}, 1, ["broken JSON"]),
        (Reply(body=b"<html>Welcome", content_type="text/html"), {}, 1, ["no chat completion", "<html>Welcome"]),
        (Reply(body=b'{"object": "list"}'), {}, 1, ["no chat completion"]),
        (Reply(body=b'[1, 2]'), {}, 1, []),
        (Reply(body=b'null'), {}, 1, []),
        (Reply(body=b'{"choices": []}'), {}, 1, ["without a text"]),
        (Reply(body=b'{"choices": [{"message": null}]}'), {}, 1, ["without a text"]),
        (Reply(body=b'{"choices": [{}]}'), {}, 1, ["without a text"]),
        (Reply(text=" \n"), {}, 1, ["without a text", "finish_reason stop"]),
        (Reply(text=None), {}, 1, ["without a text"]),
        (Reply(text="", finish_reason="length"), {"max_tokens": 5}, 1, ["used up max_tokens (5)"]),
        (Reply(text="half", finish_reason="content_filter"), {}, 1, ["content filter"]),
        (Reply(text=None, refusal="I may not."), {}, 1, ["refused: I may not."]),
    ],
)  # fmt: skip
def test_a_failure_says_what_it_was_and_what_to_do(
    environment: Any, reply: Reply, inputs: dict[str, Any], attempts: int, words: list[str]
) -> None:
    with FakeOpenAI(default=reply) as fake, pytest.raises(DescribingError) as caught:
        ask(fake, **inputs)
    assert len(fake.requests) == attempts
    for word in words:
        assert word in str(caught.value)
    # The library's exception, with its request and its answer, does not hang on it.
    assert caught.value.__context__ is None


def test_an_endpoint_that_drips_for_ever_is_given_up(environment: Any) -> None:
    started = time.monotonic()
    with FakeOpenAI(Reply(drips=0.05)) as fake, pytest.raises(DescribingError, match="still sending"):
        ask(fake, timeout=0.5)
    assert time.monotonic() - started < 5.0


def test_nobody_listens(environment: Any) -> None:
    with FakeOpenAI() as fake:
        pass
    with pytest.raises(DescribingError, match=r"no connection to http://127\.0\.0\.1.*Does the server run"):
        ask(fake)


def test_the_first_failure_names_its_image_and_ends_the_others(environment: Any, wait_for: Any) -> None:
    def reply(request: Request) -> Reply:
        return Reply(400, message="ugly") if level(request) > 200 else Reply(hangs=True)

    with FakeOpenAI(default=reply) as fake:
        with pytest.raises(DescribingError, match=r"^Image 2 of 3: .*ugly"):
            ask(fake, colours(0.1, 1.0, 0.1), timeout=60.0)
        wait_for(lambda: fake.open == 0, what="the end of the other requests")


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError], ids=["BaseException", "Exception"])
def test_a_cancel_ends_a_hanging_request_within_a_second(
    environment: Any, monkeypatch: pytest.MonkeyPatch, wait_for: Any, error: type[BaseException]
) -> None:
    asked: list[float] = []

    def check() -> None:
        if fake.open == 2:
            asked.append(time.monotonic())
            raise error("cancelled")

    monkeypatch.setattr("discomfort.editor_nodes.outer.check_interrupted", check)
    with FakeOpenAI(default=Reply(hangs=True)) as fake:
        with pytest.raises(error, match="cancelled"):
            ask(fake, colours(0.1, 0.2, 0.3), timeout=600.0, concurrency=2)
        assert time.monotonic() - asked[0] < 1.0
        wait_for(lambda: fake.open == 0, what="the end of the requests")
        wait_for(lambda: "discomfort-describer" not in {t.name for t in threading.enumerate()}, what="the thread's end")
    assert len(fake.requests) == 2


def test_what_does_not_end_is_left_behind_within_a_second(environment: Any) -> None:
    release = threading.Event()

    async def stuck() -> None:
        release.wait(30)  # as a name server that does not answer

    def look() -> None:
        raise RuntimeError("cancelled")

    started = time.monotonic()
    try:
        with pytest.raises(RuntimeError, match="cancelled"):
            describing.run_beside(stuck, look)
        assert time.monotonic() - started < 2.0
    finally:
        release.set()


def test_it_works_in_a_thread_whose_event_loop_runs(environment: Any) -> None:
    """ComfyUI calls nodes from inside a coroutine."""
    import asyncio

    async def node() -> list[str]:
        with FakeOpenAI() as fake:
            return ask(fake)[0]

    assert asyncio.run(node()) == ["A picture."]


def test_without_the_library_the_error_says_how_to_install_it(
    environment: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with FakeOpenAI() as fake:
        with pytest.raises(DescribingError, match=r"-m pip install openai"):
            ask(fake)
        assert "pip install openai" in str(DiscomfortImageDescriber.VALIDATE_INPUTS(base_url=fake.url, key_name=""))


def test_the_library_is_loaded_when_it_is_used_only() -> None:
    code = (
        "import sys, discomfort.nodes, discomfort.editor_nodes.image_describer as d; "
        "d.DiscomfortImageDescriber.VALIDATE_INPUTS(base_url='http://localhost', key_name=''); "
        "print({'openai', 'torch', 'httpx', 'httpx2'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# ---- who gets what ----


def nothing(_: str) -> None:
    return None


@pytest.mark.parametrize(
    ("base_url", "key_name", "allowed", "key"),
    [
        ("https://api.openai.com/v1", "OPENAI_API_KEY", "", KEY),
        (" HTTPS://API.OpenAI.com:443/v1/ ", "OPENAI_API_KEY", "", KEY),
        ("https://api.openai.com/v1", "", "", None),
        ("http://localhost:11434/v1", "OPENAI_API_KEY", "", None),
        ("http://127.0.0.1:11434/v1", "OPENAI_API_KEY", "", None),
        ("http://127.9.9.9", "", "", None),
        ("http://[::1]:1234/v1", "OPENAI_API_KEY", "", None),
        ("http://localhost:4000", "LITELLM_API_KEY", "http://localhost:4000=LITELLM_API_KEY", "lite"),
        ("http://localhost:4000", "OPENAI_API_KEY", "http://localhost:4000=OPENAI_API_KEY", KEY),
        ("http://gpu.lan:8000/v1", "OPENAI_API_KEY", "http://gpu.lan:8000", None),
        ("http://gpu.lan:8000/v1", "OPENAI_API_KEY", "a.example, http://GPU.lan:8000/v1/ b.example", None),
        ("https://openrouter.ai/api/v1", "LITELLM_API_KEY", "openrouter.ai=LITELLM_API_KEY", "lite"),
        ("https://openrouter.ai/api/v1", "LITELLM_API_KEY", "openrouter.ai=MY_API_KEY openrouter.ai=LITELLM_API_KEY",
         "lite"),
    ],
)  # fmt: skip
def test_who_gets_the_picture_and_which_key(base_url: str, key_name: str, allowed: str, key: str | None) -> None:
    keys = {"OPENAI_API_KEY": KEY, "LITELLM_API_KEY": "lite"}
    by_variable = decide(base_url, key_name, {**keys, "DISCOMFORT_ALLOWED_ENDPOINTS": allowed}, nothing)
    by_setting = decide(base_url, key_name, keys, {"Discomfort.ImageDescriber.Endpoints": allowed}.get)
    assert by_variable == by_setting
    assert by_variable.key == key
    assert key is None or key not in repr(by_variable)


@pytest.mark.parametrize(
    ("base_url", "key_name", "allowed", "words"),
    [
        # A workflow from somebody else that wants pictures and keys to come to it.
        ("https://evil.example/v1", "OPENAI_API_KEY", "", ["not allowed", "https://evil.example", "DISCOMFORT_AL"]),
        ("https://evil.example/v1", "", "", ["not allowed"]),
        ("https://api.openai.com.evil.example/v1", "OPENAI_API_KEY", "", ["not allowed"]),
        ("https://localhost.evil.example", "", "", ["not allowed"]),
        ("https://127.0.0.1.evil.example", "", "", ["not allowed"]),
        ("https://2130706433", "", "", ["not allowed"]),
        ("http://0.0.0.0:80", "", "", ["not allowed"]),
        ("http://169.254.169.254/latest", "", "", ["not allowed"]),
        # Not over a line that others read.
        ("http://api.openai.com/v1", "OPENAI_API_KEY", "", ["not allowed"]),
        ("http://good.example", "", "good.example", ["not allowed"]),
        ("https://good.example:444", "", "good.example", ["not allowed"]),
        # Not another key than the one that belongs there.
        ("https://api.openai.com/v1", "SECRET_ACCESS_KEY", "", ["SECRET_ACCESS_KEY may not be sent"]),
        ("http://localhost:1234", "SECRET_ACCESS_KEY", "", ["may not be sent", "http://localhost:1234=SECRET_ACCESS_KEY"]),
        ("https://good.example", "SECRET_ACCESS_KEY", "good.example", ["may not be sent"]),
        ("https://good.example", "OPENAI_API_KEY", "good.example=GOOD_API_KEY", ["may not be sent"]),
        # No key.
        ("https://good.example", "GOOD_API_KEY", "good.example=GOOD_API_KEY", ["no key GOOD_API_KEY", "Describer"]),
        # A list that is not understood.
        ("https://api.openai.com", "", "good.example, https://a@b", ["Item 2", "DISCOMFORT_ALLOWED_ENDPOINTS"]),
        ("https://api.openai.com", "", f"good.example={KEY}", ["Item 1"]),
    ],
)  # fmt: skip
def test_nothing_goes_where_the_user_did_not_allow_it(
    base_url: str, key_name: str, allowed: str, words: list[str]
) -> None:
    environment = {"OPENAI_API_KEY": KEY, "SECRET_ACCESS_KEY": "x", "DISCOMFORT_ALLOWED_ENDPOINTS": allowed}
    with pytest.raises(AccessError) as caught:
        decide(base_url, key_name, environment, nothing)
    for word in words:
        assert word in str(caught.value)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "base_url",
    ["", "api.openai.com", "ftp://a.b", "https://u:pa55@api.openai.com/v1", "https://api.openai.com\\@evil.example",
     "https://api.openai.com/v1?key=pa55", "https://api.openai.com/#pa55", "https://evil.example /v1",
     "https://a.b:99999", "https://a.b:0", "http://", "https://[::1", "https://ex\u0430mple.com", "http:/a.b"],
)  # fmt: skip
def test_an_address_that_could_be_read_in_two_ways_is_refused(base_url: str) -> None:
    with pytest.raises(AccessError, match="base_url is not a plain address") as caught:
        decide(base_url, "", {}, nothing)
    assert "pa55" not in str(caught.value)


def test_a_key_comes_from_the_environment_before_the_settings() -> None:
    settings = {endpoint_access.KEY_SETTING: f"{SECOND_KEY}, OTHER_API_KEY=other==",
                endpoint_access.ENDPOINTS_SETTING: "other.example=OTHER_API_KEY"}.get  # fmt: skip
    both = decide(endpoint_access.DEFAULT_URL, "OPENAI_API_KEY", {"OPENAI_API_KEY": KEY}, settings)
    assert (both.key, both.about_key) == (KEY, "The key came from the environment variable OPENAI_API_KEY.")
    one = decide(endpoint_access.DEFAULT_URL, "OPENAI_API_KEY", {"OPENAI_API_KEY": " "}, settings)
    assert one.key == SECOND_KEY
    assert "settings" in one.about_key
    assert decide("https://other.example", "OTHER_API_KEY", {}, settings).key == "other=="


@pytest.mark.parametrize("key", ["sk-\u2026", "two words", "line\nbreak", "\x00"])
def test_a_damaged_key_is_refused_without_being_told(key: str) -> None:
    with pytest.raises(AccessError, match="Copy it again") as caught:
        decide(endpoint_access.DEFAULT_URL, "OPENAI_API_KEY", {"OPENAI_API_KEY": key}, nothing)
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    "key",
    [KEY, "sk-ant-api03-abcdefghijklmnop", "gsk_abcdefghijklmnopqrst1234", "hf_abcdefghijklmnopqrstuvwx",
     "AIzaSyA1234567890abcdefghijklmnopqrstuv", "AKIAIOSFODNN7EXAMPLE"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["prompt", "model", "base_url", "key_name", "system_prompt"])
def test_a_key_that_was_pasted_in_is_refused_before_and_at_the_run(name: str, key: str, environment: Any) -> None:
    value = f"https://api.openai.com/{key}" if name == "base_url" else key if name == "key_name" else f"Use {key}, ok?"
    inputs = {"prompt": "p", "model": "m", "base_url": "http://localhost", "key_name": "", "system_prompt": ""}
    problem = DiscomfortImageDescriber.VALIDATE_INPUTS(**{**inputs, name: value})
    assert isinstance(problem, str)
    assert key not in problem
    assert "Discomfort > Image Describer" in problem
    with FakeOpenAI() as fake:
        with pytest.raises(AccessError) as caught:
            ask(fake, **{name: value})
        assert key not in str(caught.value)
    assert fake.requests == []


@pytest.mark.parametrize(
    "name", ["lower_api_key", "PATH", "OPENAI", "KEY", "A_KEY B_KEY", "hunter2", "A" * 300 + "_KEY"]
)
def test_only_names_of_keys_are_key_names(name: str) -> None:
    with pytest.raises(AccessError, match="name of an environment variable") as caught:
        endpoint_access.check_key_name(name)
    assert name not in str(caught.value) or name in ("KEY", "OPENAI")  # which are words of the sentence


@pytest.mark.parametrize("text", ["a task-oriented, risk-averse mask-wearing-desk-person", "sk-", "the hf_logo", "key"])
def test_words_are_not_taken_for_keys(text: str) -> None:
    assert not endpoint_access.looks_like_key(text)


def test_the_key_itself_in_a_prompt_is_refused_whatever_it_looks_like() -> None:
    with pytest.raises(AccessError, match="prompt holds the API key") as caught:
        open_access(
            endpoint_access.DEFAULT_URL, "OPENAI_API_KEY", {"prompt": f"x {PLAIN_KEY}"}, {"OPENAI_API_KEY": PLAIN_KEY},
            nothing,
        )  # fmt: skip
    assert PLAIN_KEY not in str(caught.value)


def test_validation_says_before_the_run_what_is_not_allowed_and_leaves_wires_to_it(environment: Any) -> None:
    validate = DiscomfortImageDescriber.VALIDATE_INPUTS
    inputs = {"prompt": "p", "model": "m", "base_url": "https://evil.example", "key_name": "", "system_prompt": None}
    assert "not allowed" in str(validate(**inputs))
    assert "no key OPENAI_API_KEY" in str(
        validate(**{**inputs, "base_url": endpoint_access.DEFAULT_URL, "key_name": "OPENAI_API_KEY"})
    )
    assert validate(**{**inputs, "base_url": "http://localhost:11434/v1"}) is True
    assert validate(**{**inputs, "base_url": None}) is True
    assert "looks like an API key" in str(validate(**{**inputs, "base_url": None, "prompt": KEY}))


def test_the_key_arrives_and_nothing_else_of_the_environment(environment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY", "OPENAI_WEBHOOK_SECRET"):
        monkeypatch.setenv(name, f"{name}-must-stay")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Mine: must-stay\nAuthorization: Bearer must-stay")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://must-stay.example")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("OPENAI_API_KEY", PLAIN_KEY)
    with FakeOpenAI() as fake:
        ask(fake)
        environment(f"{fake.origin}=OPENAI_API_KEY")
        ask(fake)
    assert [request.headers["Authorization"] for request in fake.requests] == ["Bearer none", f"Bearer {PLAIN_KEY}"]
    assert "must-stay" not in str([(request.headers, request.json) for request in fake.requests])
    assert PLAIN_KEY not in str(fake.requests[0])


def test_a_redirect_takes_neither_picture_nor_key_along(environment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", PLAIN_KEY)
    with FakeOpenAI() as other:
        to = {"Location": f"{other.url}/chat/completions"}
        with FakeOpenAI(default=Reply(308, headers=to)) as fake:
            environment(f"{fake.origin}=OPENAI_API_KEY")
            with pytest.raises(DescribingError, match="not followed"):
                ask(fake, retries=2)
    assert other.requests == []


def echo(request: Request) -> str:
    """What an endpoint says that repeats the key, close to where long complaints are cut off."""
    return "bad key " + "x" * 560 + " " + request.headers["Authorization"]


@pytest.mark.parametrize(
    "reply",
    [
        Reply(401, message=echo),
        Reply(400, message=echo),
        Reply(429, message=echo),
        Reply(404, message=echo),
        Reply(500, message=echo),
        Reply(429, headers={"Retry-After": f"Bearer {PLAIN_KEY}"}),
        Reply(body=f"no JSON {PLAIN_KEY}".encode()),
        Reply(body=f"hello {PLAIN_KEY}".encode(), content_type="text/plain"),
        Reply(text=None, refusal=f"Your key is {PLAIN_KEY}"),
        Reply(text=None, finish_reason=PLAIN_KEY),
    ],
)
def test_no_error_repeats_the_key(
    environment: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, reply: Reply
) -> None:
    caplog.set_level("DEBUG")
    monkeypatch.setenv("OPENAI_API_KEY", PLAIN_KEY)
    with FakeOpenAI(default=reply) as fake:
        environment(f"{fake.origin}=OPENAI_API_KEY")
        with pytest.raises(DescribingError) as caught:
            ask(fake)
    assert fake.requests[0].headers["Authorization"] == f"Bearer {PLAIN_KEY}"
    everything = "".join(traceback.format_exception(caught.value)) + caplog.text
    # Nor a part of it, where something was cut off.
    assert PLAIN_KEY[:8] not in everything


def test_no_output_repeats_the_key(environment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", PLAIN_KEY)
    reply = Reply(text=lambda r: f"You sent {r.headers['Authorization']}.", finish_reason=PLAIN_KEY)
    with FakeOpenAI(default=reply) as fake:
        environment(f"{fake.origin}=OPENAI_API_KEY")
        outputs = ask(fake)
    assert PLAIN_KEY not in str(outputs)
    assert outputs[0][0].startswith("You sent Bearer")


def test_a_wrong_key_is_told_by_its_place(environment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_OWN_API_KEY", PLAIN_KEY)
    with FakeOpenAI(Reply(401)) as fake:
        environment(f"{fake.origin}=MY_OWN_API_KEY")
        with pytest.raises(
            DescribingError, match=r"\(401\)\. The key came from the environment variable MY_OWN_API_KEY"
        ):
            ask(fake, key_name="MY_OWN_API_KEY")


# ---- in a server ----


def describer(fake: FakeOpenAI, **inputs: Any) -> dict[str, Any]:
    """A prompt that describes an image, keeps the text in a file's name, and saves the image."""
    return {
        "image": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 8, "batch_size": 2, "color": 255}},
        "text": {
            "class_type": "DiscomfortImageDescriber",
            "inputs": {
                "image": ["image", 0], "prompt": "What is it?", "model": "m", "base_url": fake.url,
                "key_name": "OPENAI_API_KEY", "mode": "one text for the batch", "detail": "auto", "max_side": 0,
                "max_tokens": 0, "temperature": -1.0, "seed": 0, "retries": 0, "timeout": 30.0, "concurrency": 2,
                **inputs,
            },
        },
        "save": {"class_type": "SaveImage", "inputs": {"images": ["image", 0], "filename_prefix": ["text", 0]}},
    }  # fmt: skip


def queue(server: OuterServer, prompt: dict[str, Any]) -> str:
    """The id of a prompt that was queued as the editor does it, workflow and all."""
    workflow = {
        "nodes": [{"id": 1, "type": "DiscomfortImageDescriber", "widgets_values": list(map(str, prompt.items()))}]
    }
    body = {"prompt": prompt, "client_id": "test", "extra_data": {"extra_pnginfo": {"workflow": workflow}}}
    return str(server.post("/prompt", body)["prompt_id"])


def entry(server: OuterServer, prompt_id: str) -> Any:
    return server.get(f"/history/{prompt_id}").get(prompt_id)


@pytest.fixture(params=SERVERS)
def asked(request: pytest.FixtureRequest, tmp_path: Path, environment: Any) -> Iterator[tuple[OuterServer, FakeOpenAI]]:
    """(a server with a key in its environment and one in its settings, an endpoint that repeats them)."""
    with FakeOpenAI() as fake:
        allowed = f"{fake.origin}=OPENAI_API_KEY,{fake.origin}=OTHER_API_KEY"
        env = {"OPENAI_API_KEY": PLAIN_KEY, "DISCOMFORT_ALLOWED_ENDPOINTS": allowed, "OPENAI_LOG": "debug"}
        with outer_server(request.param, tmp_path, env) as server:
            server.post("/settings", {endpoint_access.KEY_SETTING: f"OTHER_API_KEY={SECOND_KEY}"})
            yield server, fake


def test_in_a_server_the_key_is_nowhere_but_in_the_request(
    asked: tuple[OuterServer, FakeOpenAI], wait_for: Any, tmp_path: Path
) -> None:
    server, fake = asked
    fake.default = Reply(text=lambda r: f"seen_{r.headers['Authorization'].split()[1]}")
    ids = [queue(server, describer(fake)), queue(server, describer(fake, key_name="OTHER_API_KEY"))]
    entries = [wait_for(lambda one=one: entry(server, one), 60.0, "the run's end") for one in ids]
    assert [one["status"]["status_str"] for one in entries] == ["success", "success"], server.log()
    fake.default = Reply(401, message=echo)
    ids = [queue(server, describer(fake, seed=1)), queue(server, describer(fake, seed=1, key_name="OTHER_API_KEY"))]
    failed = [wait_for(lambda one=one: entry(server, one), 60.0, "the run's end") for one in ids]
    assert "environment variable OPENAI_API_KEY" in json.dumps(failed[0]["status"])
    assert "OTHER_API_KEY in the editor's settings" in json.dumps(failed[1]["status"])
    sent = [one.headers["Authorization"] for one in fake.requests]
    assert sent == [f"Bearer {PLAIN_KEY}", f"Bearer {SECOND_KEY}"] * 2
    # A key in a widget: refused, not run, not kept.
    status, refused = server.request("POST", "/prompt", {"prompt": describer(fake, key_name=KEY)})
    assert status == 400
    assert "key_name" in json.dumps(refused)

    answers = ["/history", "/queue", "/object_info", "/system_stats", "/prompt", "/internal/logs/raw"]
    places = {path: json.dumps(server.get(path)).encode() for path in answers}
    files = [path for path in tmp_path.rglob("*") if path.is_file() and "custom_nodes" not in path.parts]
    assert sum(path.suffix == ".png" for path in files) == 4
    assert server.log_path in files
    places |= {str(path): path.read_bytes() for path in files if path.name != "comfy.settings.json"}
    for key in (PLAIN_KEY, SECOND_KEY, KEY):
        found = [place for place, content in places.items() if key.encode() in content]
        assert found == [], f"the key {key!r} is in these places"


def test_in_a_server_cancel_ends_a_hanging_request_and_the_server_answers_meanwhile(
    asked: tuple[OuterServer, FakeOpenAI], wait_for: Any
) -> None:
    server, fake = asked
    fake.default = Reply(hangs=True)
    prompt_id = queue(server, describer(fake))
    wait_for(lambda: fake.open == 1, 60.0, "the request")
    started = time.monotonic()
    server.get("/system_stats")
    assert time.monotonic() - started < 5.0
    started = time.monotonic()
    server.request("POST", "/interrupt", {})
    ended = wait_for(lambda: entry(server, prompt_id), 10.0, "the end of the prompt")
    assert time.monotonic() - started < 2.0
    assert "execution_interrupted" in [kind for kind, _ in ended["status"]["messages"]]
    wait_for(lambda: fake.open == 0, what="the end of the request")


def test_in_a_server_unchanged_inputs_are_asked_about_once(
    asked: tuple[OuterServer, FakeOpenAI], wait_for: Any
) -> None:
    server, fake = asked
    for seed in (0, 0, 1):
        prompt_id = queue(server, describer(fake, seed=seed))
        wait_for(lambda one=prompt_id: entry(server, one), 60.0, "the run's end")
    assert [request.json.get("seed") for request in fake.requests] == [None, 1]
