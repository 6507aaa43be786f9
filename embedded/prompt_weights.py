"""Weights in prompts' texts: ``a (red:1.2) cat`` (single functions of ``comfy.sd1_clip`` for node packages).

Results are those of ComfyUI 0.3.64. What the words mean to a text encoder is no business of this module.
"""

from __future__ import annotations

# What each pair of brackets without a number multiplies the weight with.
_EMPHASIS = 1.1
# What escaped brackets become while others are looked for.
_ESCAPED = {"\\)": "\0\1", "\\(": "\0\2"}


def escape_important(text: str) -> str:
    """A text whose escaped brackets are hidden from :func:`token_weights`."""
    for escaped, hidden in _ESCAPED.items():
        text = text.replace(escaped, hidden)
    return text


def unescape_important(text: str) -> str:
    """A text whose hidden brackets are brackets again, no longer escaped."""
    for escaped, hidden in _ESCAPED.items():
        text = text.replace(hidden, escaped[1])
    return text


def parse_parentheses(string: str) -> list[str]:
    """A text in pieces: what is in outer brackets, with them, and what is between. Unclosed ones end the last piece."""
    pieces: list[str] = []
    piece, depth = "", 0
    for char in string:
        if char == "(" and depth == 0 and piece:
            pieces.append(piece)
            piece = ""
        if char == ")" and depth == 1:
            pieces.append(piece + char)
            piece = ""
        else:
            piece += char if char != ")" or depth != 1 else ""
        depth += {"(": 1, ")": -1}.get(char, 0)
    return [*pieces, piece] if piece else pieces


def token_weights(string: str, current_weight: float) -> list[tuple[str, float]]:
    """A text's parts with their weights: each pair of brackets counts 1.1, or what it says after a colon.

    Args:
        string: with escaped brackets hidden (:func:`escape_important`).
        current_weight: the weight outside of brackets, usually 1.0.
    """
    parts: list[tuple[str, float]] = []
    for piece in parse_parentheses(string):
        if len(piece) < 2 or piece[0] != "(" or piece[-1] != ")":
            parts.append((piece, current_weight))
            continue
        inner, weight = piece[1:-1], current_weight * _EMPHASIS
        colon = inner.rfind(":")
        if colon > 0:
            try:
                inner, weight = inner[:colon], float(inner[colon + 1 :])
            except ValueError:
                # A colon of the text itself.
                inner = piece[1:-1]
        parts += token_weights(inner, weight)
    return parts
