"""What never goes to disk with a run's record: values whose name says that they are secrets. Pure.

A workflow should hold none, but people paste keys into widgets, and hand tokens through ports. A widget's value is then
left out of the recorded prompt; a port's value is neither stored nor digested; and both are blotted out of texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

#: what stands in a record in a secret's place
REMOVED = "(secret, not recorded)"

_NAME = re.compile(
    r"(?:^|[^a-z])(?:api[^a-z0-9]?keys?|secrets?|passwords?|passwd|passphrase|credentials?|authorization|bearer|"
    r"(?:access|auth|api|bearer|refresh|hf|civitai|session)[^a-z0-9]?tokens?|tokens?|private[^a-z0-9]?key)(?:$|[^a-z])",
)
# "auth_token_comfy_org" is one; what counts the tokens of a text is none.
_HARMLESS = re.compile(
    r"(?:max|min|num|n|count|total|new|per)[^a-z0-9]*tokens?|tokens?[^a-z0-9]*(?:count|limit|per|length)"
)


def is_secret_name(name: Any) -> bool:
    """Whether a widget or port of this name holds a secret: "api_key", "apiKey", "hf_token", "password"."""
    if not isinstance(name, str):
        return False
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return bool(_NAME.search(words)) and not _HARMLESS.search(words)


def without_secrets(prompt: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """(a prompt without its secrets, what they were). The nodes that have none are the same objects."""
    found: set[str] = set()
    cleaned: dict[str, Any] = {}
    for node_id, node in prompt.items():
        inputs = node.get("inputs") if isinstance(node, Mapping) else None
        inputs = inputs if isinstance(inputs, Mapping) else {}
        hidden = {n: text for n, text in inputs.items() if isinstance(text, str) and text and is_secret_name(n)}
        found |= set(hidden.values())
        cleaned[node_id] = node if not hidden else {**node, "inputs": {**inputs, **dict.fromkeys(hidden, REMOVED)}}
    return cleaned, found


def workflow_without(workflow: Any, secrets: Iterable[str]) -> Any:
    """An editor workflow in which no text is one of these secrets: there widgets have no names."""
    known = set(secrets)
    if not known:
        return workflow

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            return REMOVED if value in known else value
        if isinstance(value, Mapping):
            return {key: clean(one) for key, one in value.items()}
        return [clean(one) for one in value] if isinstance(value, (list, tuple)) else value

    return clean(workflow)


def blotted(text: str, secrets: Iterable[str]) -> str:
    """A text (of JSON, say) without these secrets; those of less than six characters would blot out harmless words."""
    for secret in secrets:
        if len(secret) >= 6:
            text = text.replace(secret, REMOVED).replace(json.dumps(secret)[1:-1], REMOVED)
    return text
