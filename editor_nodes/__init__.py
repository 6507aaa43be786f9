"""The nodes that people place in the editor, one file each, over plain functions beside them.

``nodes.py`` registers them. What a node class has is its sockets, widgets and words; what it does is in plain functions
that know no ComfyUI:

- the folder loader: ``folder_files.py`` (which files), ``fitted_images.py`` (one image), ``folder_images.py`` (all);
- the describer: ``describing.py``, ``describer_answers.py``, ``endpoint_access.py`` (who gets pictures, and which key);
- the nodes that run workflows: ``running.py`` (the nested server), ``nested_config.py`` (how it is started),
  ``node_run.py`` and ``run_meter.py`` (one run), ``runner_sockets.py``, ``batching.py``, ``padding.py``.

``outer.py`` is the one place that asks the surrounding ComfyUI for something: progress, interrupts, memory, settings.
"""
