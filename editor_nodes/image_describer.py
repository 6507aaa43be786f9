"""DiscomfortImageDescriber: text about images, from a model that sees."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from . import describing, endpoint_access, outer
from .describer_answers import Limits, Question, usage_text


class DiscomfortImageDescriber:
    """Asks an OpenAI-compatible endpoint about images."""

    CATEGORY = "Discomfort/text"
    DESCRIPTION = (
        "Describes images in words, or answers a question about them, by a model that sees: of OpenAI, or of any "
        "OpenAI-compatible server (Ollama, LM Studio, vLLM, OpenRouter ...). The API key stays out of the workflow."
    )
    RETURN_TYPES = ("STRING", "STRING", "STRING")
    RETURN_NAMES = ("text", "all_texts", "usage")
    OUTPUT_IS_LIST = (True, False, False)
    OUTPUT_TOOLTIPS = (
        "A list: one text per image, in their order, or the one text for the batch. Nodes behind it run once per text.",
        "All texts as one, with an empty line between them.",
        "What it took, as JSON: requests, prompt_tokens, completion_tokens, total_tokens, models, finish_reasons.",
    )
    FUNCTION = "describe"
    SEARCH_ALIASES: ClassVar[list[str]] = [
        "caption", "describe image", "image to text", "vision", "vlm", "llm", "gpt", "openai", "ollama", "lm studio",
        "interrogate", "tagger", "prompt from image",
    ]  # fmt: skip

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Sockets and widgets, in the order in which saved workflows hold them."""
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "The images to describe; transparent parts are put on white."}),
                "prompt": (
                    "STRING",
                    {
                        "default": "Describe this image in detail.",
                        "multiline": True,
                        "tooltip": "What to say about the image: a question or an instruction.",
                    },
                ),
                "model": (
                    "STRING",
                    {
                        "default": "gpt-4o-mini",
                        "tooltip": "The model, as the endpoint calls it; one that understands images.",
                    },
                ),
                "base_url": (
                    "STRING",
                    {
                        "default": endpoint_access.DEFAULT_URL,
                        "tooltip": "Address of the API. Ollama: http://localhost:11434/v1, LM Studio: "
                        "http://localhost:1234/v1. Others than OpenAI and this machine have to be allowed in the "
                        "settings first; see the help.",
                    },
                ),
                "key_name": (
                    "STRING",
                    {
                        "default": endpoint_access.DEFAULT_KEY_NAME,
                        "tooltip": "The NAME of the environment variable (or of the item in the settings) that holds "
                        "the API key, never the key itself. Servers on this machine need none.",
                    },
                ),
                "mode": (
                    [describing.PER_IMAGE, describing.PER_BATCH],
                    {
                        "default": describing.PER_IMAGE,
                        "tooltip": "Ask about each image alone, or about all images of the batch together, in one "
                        "request.",
                    },
                ),
                "detail": (
                    ["auto", "low", "high"],
                    {
                        "default": "auto",
                        "tooltip": "How closely the model looks: low is cheaper. Auto sends nothing; some endpoints "
                        "know no other.",
                    },
                ),
                "max_side": (
                    "INT",
                    {
                        "default": 1024,
                        "min": 0,
                        "max": 8192,
                        "tooltip": "Images are scaled down to this many pixels on their longer side before they are "
                        "sent. 0: sent in their own size.",
                    },
                ),
                "max_tokens": (
                    "INT",
                    {
                        "default": 500,
                        "min": 0,
                        "max": 100_000,
                        "tooltip": "Longest answer, in tokens; models that think need more. 0: nothing is sent, the "
                        "endpoint decides.",
                    },
                ),
                "temperature": (
                    "FLOAT",
                    {
                        "default": -1.0,
                        "min": -1.0,
                        "max": 2.0,
                        "step": 0.05,
                        "tooltip": "0: the likeliest words, higher: more variety. -1: nothing is sent, the endpoint "
                        "decides; some models take nothing else.",
                    },
                ),
                "seed": (
                    "INT",
                    {
                        "default": 0,
                        "min": 0,
                        "max": 2**31 - 1,
                        "control_after_generate": False,
                        "tooltip": "Another number asks again instead of taking the text of last time; it is sent to "
                        "the endpoint, which may care. 0: nothing is sent.",
                    },
                ),
                "retries": (
                    "INT",
                    {
                        "default": 3,
                        "min": 0,
                        "max": 10,
                        "tooltip": "Further attempts after a rate limit, a server error or a lost connection, with "
                        "growing pauses or as long as the endpoint asks for.",
                    },
                ),
                "timeout": (
                    "FLOAT",
                    {
                        "default": 60.0,
                        "min": 1.0,
                        "max": 3600.0,
                        "step": 1.0,
                        "tooltip": "Seconds to wait for the answer to one attempt. A local model that has to be "
                        "loaded first needs more.",
                    },
                ),
                "concurrency": (
                    "INT",
                    {
                        "default": 4,
                        "min": 1,
                        "max": 32,
                        "tooltip": "How many images are asked about at once (mode: one text per image).",
                    },
                ),
            },
            "optional": {
                "system_prompt": (
                    "STRING",
                    {
                        "default": "",
                        "multiline": True,
                        "tooltip": "Who the model is, and how it answers. Empty: none is sent.",
                    },
                ),
            },
        }

    @classmethod
    def VALIDATE_INPUTS(
        cls,
        prompt: Any = None,
        model: Any = None,
        base_url: Any = None,
        key_name: Any = None,
        system_prompt: Any = None,
    ) -> bool | str:
        """Refuse before anything executes or is kept in the history; what comes by wire (None here) is looked at later.

        Keys that were pasted in, endpoints that are not allowed, and keys that are not there.
        """
        texts = {"prompt": prompt, "model": model, "system_prompt": system_prompt}
        if not isinstance(base_url, str) or not isinstance(key_name, str):
            return endpoint_access.find_pasted_key({**texts, "base_url": base_url, "key_name": key_name}) or True
        try:
            endpoint_access.open_access(base_url, key_name, texts, os.environ, outer.setting)
        except endpoint_access.AccessError as error:
            return str(error)
        return describing.find_missing_library() or True

    def describe(
        self,
        image: Any,
        prompt: str,
        model: str,
        base_url: str,
        key_name: str,
        mode: str,
        detail: str,
        max_side: int,
        max_tokens: int,
        temperature: float,
        seed: int,
        retries: int,
        timeout: float,
        concurrency: int,
        system_prompt: str = "",
    ) -> tuple[list[str], str, str]:
        """The texts, the texts as one, and what they took."""
        access = endpoint_access.open_access(
            base_url, key_name, {"prompt": prompt, "model": model, "system_prompt": system_prompt},
            os.environ, outer.setting,
        )  # fmt: skip
        groups = describing.groups_of(image, mode)
        answers = describing.describe(
            groups,
            Question(prompt, model.strip(), system_prompt, detail, max_tokens, temperature, seed),
            Limits(max_side, retries, timeout, concurrency),
            access,
            watch=outer.check_interrupted,
            report=outer.Progress(len(groups)).update,
        )
        texts = [answer.text for answer in answers]
        return texts, "\n\n".join(texts), usage_text(answers)
