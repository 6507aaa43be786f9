"""What the editor's sidebar and the runner nodes ask the server for: HTTP routes under ``/discomfort/``.

- ``registration.py``: adds all of it to the ComfyUI that has loaded this package;
- ``routes.py``: the list of the routes; the handlers are in ``routes_state.py`` (the list of runs, settings, the nested
  server), ``routes_runs.py`` (one run: events, values, commands), ``routes_workflows.py`` (workflows, their ports,
  conditions) and ``link_socket.py`` (the wire that runs of scripts come in by);
- ``answering.py``: how a request is read, and what an error looks like; ``same_origin.py``: whose requests are refused;
- ``hub.py``: the runs that go on; tells the browsers about them, and them what the browsers want;
- ``publication.py``: says on this machine that an editor is open, and where;
- ``values.py``: a value of a run in words and as a picture; ``stitching.py``: a run's workflows as one;
- ``workflow_files.py``: finds workflows by name; ``runner_ports.py``: the ports of a list of them, which become a
  runner node's sockets; ``conditions.py``: what is wrong with a condition.

docs/reference/editor-protocol.md has the routes and messages. Nothing here imports torch before a value is looked at.
"""
