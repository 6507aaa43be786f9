"""Discomfort: loops, decisions and state around ComfyUI workflows (table of contents, names load lazily)."""
