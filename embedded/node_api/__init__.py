"""The node API packages call V3: ``comfy_api`` (table of contents).

A package defines subclasses of :class:`~.node.ComfyNode`, each with a ``define_schema()`` that returns a
:class:`~.schema.Schema`, and offers them by ``comfy_entrypoint()``, which returns a
:class:`~.extension.ComfyExtension`. Names, arguments, JSON and messages are those of ComfyUI 0.3.64, with what
0.29.0 has beyond it.

* ``type_names``: the names of types, and which fit each other
* ``options``: enumerations and the like that options are made of
* ``inputs, outputs``: what is common to all inputs and outputs of a schema
* ``declaration``: making a class the description of a type: ``@comfytype``, ``Custom``
* ``plain_types``: types with nothing but a name: images, masks, models ...
* ``widget_types``: types the editor has widgets for: numbers, text, combos, colours ...
* ``dynamic_types``: inputs that become other inputs: ``Autogrow``, ``DynamicCombo``, ``MatchType`` ...
* ``dynamic_inputs``: which inputs a node has, given what the prompt links to it
* ``hidden``: what a node is told beside its inputs
* ``price_badge``: what a node that calls a paid service costs
* ``schema``: everything a node class says of itself, and its JSON in /object_info
* ``node, node_output``: the base class of nodes, and what they return
* ``node_class``: the locked copy of a class a node runs on
* ``calls``: how the executor calls V3 nodes beside V1 nodes
* ``io, ui``: the two namespaces packages work with
* ``saving, audio``: files of images and sound, for ``ui``
* ``values``: images, sound, video ... as packages annotate them
* ``video, geometry, curves, ranges``: values with methods
* ``api, sync_api, singleton``: ``ComfyAPI`` and ``ComfyAPISync``: progress, replacements
* ``node_replacement``: nodes that took the place of others
* ``extension``: what ``comfy_entrypoint`` returns
* ``feature_flags``: what clients said they can do
* ``latest, v0_0_1, v0_0_2, version_list, api_registry, internal``: the modules packages import
* ``module_names, root``: under which names they do, see also ``import_names.py``

Importing this package imports no torch.
"""
