"""What may leave for which endpoint: the pictures, and the key. Pure, but for what it is handed.

Workflows are passed around, and one may name any address and any environment variable. So neither a picture nor a key
follows a workflow's word alone; the user's own word is needed, which no workflow can write:

* api.openai.com may get pictures, and the key OPENAI_API_KEY.
* This machine itself (localhost, 127.0.0.1, ::1) may get pictures, and no key.
* Every other endpoint, and every other pair of endpoint and key, is listed by the user: in the environment variable
  DISCOMFORT_ALLOWED_ENDPOINTS or in the setting "Discomfort.ImageDescriber.Endpoints" of the editor.

The list has one item per endpoint, separated by commas or white space: ``ORIGIN`` (pictures may go there, no key), or
``ORIGIN=KEY_NAME`` (and the key of that name). An origin is scheme, host and port as browsers mean it; without a scheme
it is https. The same origin may be listed for several keys.

The value of a key is in the environment variable of its name, else in the setting "Discomfort.ImageDescriber.ApiKey",
which has ``NAME=key`` items in the same form; a key alone there is OPENAI_API_KEY.

No message of this module repeats a key, nor a text that looks like one.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..durable.secrets import blotted

DEFAULT_URL = "https://api.openai.com/v1"
DEFAULT_KEY_NAME = "OPENAI_API_KEY"
OPENAI_ORIGIN = "https://api.openai.com"

ENDPOINTS_VARIABLE = "DISCOMFORT_ALLOWED_ENDPOINTS"
ENDPOINTS_SETTING = "Discomfort.ImageDescriber.Endpoints"
KEY_SETTING = "Discomfort.ImageDescriber.ApiKey"
#: where people find the two settings in the editor
SETTINGS_PLACE = "the editor's settings (Discomfort > Image Describer)"

# Capitals, underscores and an ending that says what it is: nobody's key looks like that.
_KEY_NAME = re.compile(r"(?:[A-Z][A-Z0-9]{0,30}_){1,6}(?:KEY|TOKEN)")
# Nothing that two parsers of URLs could understand differently: no user, query, fragment, backslash or blank.
_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9][a-z0-9._-]*|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>(?:/[A-Za-z0-9._~%+-]*)*)",
    re.IGNORECASE,
)
_ITEMS = re.compile(r"[\s,;]+")
_DEFAULT_PORTS = {"http": 80, "https": 443}
# The forms that providers give their keys. The first one needs a digit, or "sk-" before a long word would be one.
_KEYS = re.compile(
    r"(?<![A-Za-z0-9])(?:sk-(?=[A-Za-z_-]{0,99}[0-9])[A-Za-z0-9_-]{16,}|(?:gsk|hf|ghp|gho|pplx|r8)[_-][A-Za-z0-9]{20,}|"
    r"github_pat_[A-Za-z0-9_]{20,}|(?:xai|nvapi|tgp_v1|fw|csk)[_-][A-Za-z0-9_-]{20,}|AIza[A-Za-z0-9_-]{30,}|"
    r"A[KS]IA[A-Z0-9]{16}|eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.)"
)


class AccessError(ValueError):
    """The endpoint may not get what it would be sent, or there is no key for it; the message says what to do."""


class Endpoint(NamedTuple):
    """Where requests go."""

    #: "https://api.openai.com", "http://127.0.0.1:11434": scheme, host and port, unless it is the scheme's own
    origin: str
    #: base_url without blanks and slashes at its ends
    url: str
    #: on this machine
    is_local: bool


@dataclass(frozen=True)
class Access:
    """An endpoint that may get pictures, and the key for it."""

    endpoint: Endpoint
    #: None: it gets none
    key: str | None = field(repr=False)
    #: a sentence: where the key came from, or why there is none
    about_key: str

    def without_key(self, text: str) -> str:
        """A text of the endpoint's without the key: some repeat what they are sent."""
        return blotted(text, [self.key] if self.key else [])


def looks_like_key(text: str) -> bool:
    """Whether a text has something in it that looks like the key of a known provider."""
    return _KEYS.search(text) is not None


def find_pasted_key(texts: Mapping[str, Any]) -> str | None:
    """A sentence about the first of these inputs that holds a key; None where none does.

    Args:
        texts: name of the input -> its value; what is no text, because it comes by wire later, is passed over.
    """
    for name, text in texts.items():
        if isinstance(text, str) and looks_like_key(text):
            return (
                f"{name} holds what looks like an API key. Take it out: workflows are saved, shared and put into "
                "pictures, with everything in them. " + _where_keys_belong()
            )
    return None


def check_key_name(name: str) -> str:
    """The name without blanks around it; "" is one, too: no key.

    Raises:
        AccessError: it is no name of a key; perhaps it is the key itself, so the message does not repeat it.
    """
    name = name.strip()
    if name and not _KEY_NAME.fullmatch(name):
        raise AccessError(
            "key_name is the name of an environment variable, as OPENAI_API_KEY: capitals, digits and underscores, "
            "with _KEY or _TOKEN at the end. If you pasted the key itself, take it out of the workflow. "
            + _where_keys_belong()
        )
    return name


def parse_url(base_url: str) -> Endpoint:
    """Understand a node's base_url.

    Raises:
        AccessError: it is none. The message does not repeat it: people paste addresses with passwords in them.
    """
    url = base_url.strip().rstrip("/")
    match = _URL.fullmatch(url)
    if match is None or _port(match) is None:
        raise AccessError(
            "base_url is not a plain address such as https://api.openai.com/v1 or http://localhost:11434/v1: a scheme "
            "(http or https), a host, perhaps a port and a path; no user, password, query or key in it."
        )
    origin = _origin(match)
    return Endpoint(origin, origin + match["path"], _is_local(match["host"]))


def parse_allowed(text: str, where: str) -> dict[str, set[str]]:
    """Understand a list of endpoints: origin -> the names of the keys that it may get.

    Args:
        where: what the list is, for the message.

    Raises:
        AccessError: an item is not understood; it is told by its place in the list, not by its words.
    """
    allowed: dict[str, set[str]] = {}
    for number, item in enumerate(filter(None, _ITEMS.split(text)), 1):
        address, _, name = item.partition("=")
        match = _URL.fullmatch(address if "://" in address else f"https://{address}")
        # A path is no harm, people copy base_urls; what counts is the origin.
        if match is None or _port(match) is None or (name and not _KEY_NAME.fullmatch(name)):
            raise AccessError(
                f"Item {number} of {where} is not understood. Write https://HOST, http://HOST:PORT, or "
                "https://HOST=NAME_OF_THE_API_KEY; items are separated by commas."
            )
        allowed.setdefault(_origin(match), set()).update([name] if name else [])
    return allowed


def parse_keys(text: str) -> dict[str, str]:
    """Understand the setting with the keys: name -> key."""
    keys: dict[str, str] = {}
    for item in filter(None, _ITEMS.split(text)):
        name, equals, key = item.partition("=")
        if equals and _KEY_NAME.fullmatch(name):
            keys[name] = key
        else:
            keys[DEFAULT_KEY_NAME] = item
    return keys


def open_access(
    base_url: str,
    key_name: str,
    texts: Mapping[str, Any],
    environment: Mapping[str, str],
    setting: Callable[[str], Any],
) -> Access:
    """What an endpoint gets, after a look at everything that a node sends.

    Args:
        texts: the node's other texts: name of the input -> its value.
        base_url, key_name, environment, setting: see :func:`decide`.

    Raises:
        AccessError: as of :func:`decide`; or a key was pasted into one of the inputs.
    """
    pasted = find_pasted_key({"base_url": base_url, "key_name": key_name, **texts})
    if pasted:
        raise AccessError(pasted)
    access = decide(base_url, key_name, environment, setting)
    for name, text in {"base_url": base_url, **texts}.items():
        if isinstance(text, str) and access.without_key(text) != text:
            raise AccessError(f"{name} holds the API key itself. Take it out: it would be saved with the workflow.")
    return access


def decide(base_url: str, key_name: str, environment: Mapping[str, str], setting: Callable[[str], Any]) -> Access:
    """What an endpoint gets.

    Args:
        base_url, key_name: of the node.
        environment: the environment variables.
        setting: the editor's setting of an id; anything that is no text counts as "".

    Raises:
        AccessError: it may not get the picture, or not this key, or there is no such key.
    """
    endpoint, key_name = parse_url(base_url), check_key_name(key_name)
    allowed = {OPENAI_ORIGIN: {DEFAULT_KEY_NAME}}
    for text, where in (
        (environment.get(ENDPOINTS_VARIABLE, ""), f"the environment variable {ENDPOINTS_VARIABLE}"),
        (_text(setting(ENDPOINTS_SETTING)), f"'Allowed addresses' in {SETTINGS_PLACE}"),
    ):
        for origin, names in parse_allowed(text, where).items():
            allowed.setdefault(origin, set()).update(names)
    if endpoint.origin not in allowed and not endpoint.is_local:
        raise AccessError(_not_allowed(endpoint, key_name))
    if _wants_no_key(key_name, allowed.get(endpoint.origin, set())):
        return Access(endpoint, None, _about_no_key(endpoint, key_name))
    if key_name not in allowed.get(endpoint.origin, set()):
        raise AccessError(
            f"The key {key_name} may not be sent to {endpoint.origin}: nothing of yours says that it belongs there. If "
            f"it does, {_how_to_allow(f'{endpoint.origin}={key_name}')} If {endpoint.origin} needs no key, empty "
            "key_name."
        )
    key, source = _find_key(key_name, environment, setting)
    return Access(endpoint, key, f"The key came from {source}.")


def _wants_no_key(key_name: str, bound: set[str]) -> bool:
    """Whether a node asks for no key: its key_name is empty, or as it was when it was placed, and no key belongs to the
    endpoint."""
    return not key_name or (key_name == DEFAULT_KEY_NAME and not bound)


def _find_key(name: str, environment: Mapping[str, str], setting: Callable[[str], Any]) -> tuple[str, str]:
    """(the key, where it was)."""
    key, source = environment.get(name, "").strip(), f"the environment variable {name}"
    if not key:
        key, source = parse_keys(_text(setting(KEY_SETTING))).get(name, ""), f"{name} in {SETTINGS_PLACE}"
    if not key:
        raise AccessError(f"There is no key {name}. {_where_keys_belong(name)}")
    # The library below would put the whole of it into its complaint.
    if not re.fullmatch(r"[\x21-\x7e]+", key):
        raise AccessError(f"The key from {source} has blanks or letters in it that no key has. Copy it again.")
    return key, source


def _where_keys_belong(name: str = DEFAULT_KEY_NAME) -> str:
    item = "the key" if name == DEFAULT_KEY_NAME else f"{name}=the key"
    return (
        f"Keys belong into the environment variable {name} of the ComfyUI server (set before it starts), or as "
        f"'{item}' into 'API key' in {SETTINGS_PLACE}."
    )


def _not_allowed(endpoint: Endpoint, key_name: str) -> str:
    with_key = f"{endpoint.origin}={key_name or DEFAULT_KEY_NAME}"
    return (
        f"Nothing was sent to {endpoint.origin}: you have not allowed it. (A workflow from somebody else could name "
        f"any address for your pictures and keys.) If you want it, {_how_to_allow(endpoint.origin)} If it shall get a "
        f"key, add {with_key} instead."
    )


def _how_to_allow(item: str) -> str:
    return (
        f"add {item} to 'Allowed addresses' in {SETTINGS_PLACE}, or to the environment variable {ENDPOINTS_VARIABLE} "
        "of the ComfyUI server."
    )


def _about_no_key(endpoint: Endpoint, key_name: str) -> str:
    name = key_name or "MY_API_KEY"
    if name == DEFAULT_KEY_NAME:
        name = "MY_API_KEY"
    return (
        f"No key was sent. If {endpoint.origin} wants one, name it in key_name, {name} say, and "
        f"{_how_to_allow(f'{endpoint.origin}={name}')}"
    )


def _port(match: re.Match[str]) -> int | None:
    """The port of an address, None where it is none."""
    port = int(match["port"]) if match["port"] else _DEFAULT_PORTS[match["scheme"].lower()]
    return port if 0 < port < 65536 else None


def _origin(match: re.Match[str]) -> str:
    scheme, host, port = match["scheme"].lower(), match["host"].lower(), _port(match)
    return f"{scheme}://{host}" + ("" if port == _DEFAULT_PORTS[scheme] else f":{port}")


def _is_local(host: str) -> bool:
    """Whether a host is this machine by its name or number; names that lead here by DNS only are not."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
