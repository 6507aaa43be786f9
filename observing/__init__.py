"""What a run tells about itself while it goes on, and what it can be told: the run's side of the editor's sidebar.

A run is observed where an editor with Discomfort is open on the machine, be the run the editor's own or a script's.

- ``editors.py``: which editors there are;
- ``run_history.py``: the folder of an observed run, ``events.jsonl`` and small pictures, written by the run and read by
  the editor, also when the run is long over;
- ``sketches.py``: a value in a few words and a small picture;
- ``run_control.py``: pause, step, continue, stop, breakpoints, and edits of values;
- ``link.py``: the wire from a script to an editor in another process;
- ``observer.py``: joins these for one run.

docs/reference/editor-protocol.md has the formats.
"""
