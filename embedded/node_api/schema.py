"""Everything a V3 node class says of itself, and its JSON in /object_info."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from .dynamic_types import DynamicInput, MatchType
from .hidden import Hidden
from .inputs import Input, create_input_dict_v1
from .outputs import Output
from .price_badge import PriceBadge


@dataclass
class NodeInfoV1:
    """A node in /object_info."""

    # Category -> id -> (type, options), and the ids in order.
    input: dict[str, Any] | None = None
    input_order: dict[str, list[str]] | None = None
    is_input_list: bool | None = None
    # Per output.
    output: list[Any] | None = None
    output_is_list: list[bool] | None = None
    output_name: list[str] | None = None
    output_tooltips: list[str | None] | None = None
    # The ids of the outputs' MatchType templates, None if there are none.
    output_matchtypes: list[str | None] | None = None
    name: str | None = None
    display_name: str | None = None
    description: str | None = None
    python_module: Any = None
    category: str | None = None
    output_node: bool | None = None
    deprecated: bool | None = None
    experimental: bool | None = None
    dev_only: bool | None = None
    api_node: bool | None = None
    price_badge: dict[str, Any] | None = None
    search_aliases: list[str] | None = None
    essentials_category: str | None = None
    has_intermediate_output: bool | None = None


@dataclass
class Schema:
    """The definition of a node; what ``define_schema()`` returns."""

    # The class_type in prompts; unique over all packages.
    node_id: str
    # Its title in the editor; None: the node_id.
    display_name: str | None = None
    # Its place in the editor's menu, "folder/folder".
    category: str = "sd"
    inputs: list[Input] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    # What the node is told beside its inputs; output nodes and API nodes get some more.
    hidden: list[Hidden] = field(default_factory=list)
    # What the editor says when the mouse rests on the node.
    description: str = ""
    # Other words the editor's search finds it by.
    search_aliases: list[str] = field(default_factory=list)
    # Whole lists arrive in one call instead of a call per item; also in check_lazy_status.
    is_input_list: bool = False
    # It delivers results: prompts are run for the sake of such nodes.
    is_output_node: bool = False
    # What the editor says of it.
    is_deprecated: bool = False
    is_experimental: bool = False
    is_dev_only: bool = False
    is_api_node: bool = False
    price_badge: PriceBadge | None = None
    # Equal nodes of one prompt do not share their results.
    not_idempotent: bool = False
    # Its results may have ``expand``.
    enable_expand: bool = False
    # It gets the constant inputs of the prompt it does not declare, too.
    accept_all_inputs: bool = False
    # Its place among the editor's essentials.
    essentials_category: str | None = None
    # What it shows is kept and sent again like an output node's, without being one.
    has_intermediate_output: bool = False

    def validate(self) -> None:
        """Check that ids are unique, and what the inputs, outputs and price say.

        Raises:
            ValueError: they are not; with all ids that occur twice.
        """
        static = [item for i in self.inputs if not isinstance(i, DynamicInput) for item in i.get_all()]
        ids: dict[str, list[Any]] = {"Input": [i.id for i in static], "Output": [o.id for o in self.outputs]}
        repeated = {kind: [name for name, count in Counter(names).items() if count > 1] for kind, names in ids.items()}
        issues = [f"{kind} ids must be unique, but {names} are not." for kind, names in repeated.items() if names]
        if issues:
            raise ValueError("\n".join(issues))
        for item in (*self.inputs, *self.outputs):
            item.validate()
        if self.price_badge is not None:
            self.price_badge.validate()

    def finalize(self) -> None:
        """Add the hidden inputs that output nodes and API nodes have, and ids to outputs without."""
        self.inputs, self.outputs, self.hidden = self.inputs or [], self.outputs or [], self.hidden or []
        if self.is_api_node:
            self._hide(Hidden.auth_token_comfy_org, Hidden.api_key_comfy_org, Hidden.comfy_usage_source)
        if self.is_output_node:
            self._hide(Hidden.prompt, Hidden.extra_pnginfo)
        for position, output in enumerate(self.outputs):
            if output.id is None:
                output.id = f"_{position}_{output.io_type}_"

    def _hide(self, *kinds: Hidden) -> None:
        self.hidden.extend(kind for kind in kinds if kind not in self.hidden)

    def get_v1_info(self, cls: Any) -> NodeInfoV1:
        """The node in /object_info.

        Args:
            cls: its class, which knows the module it comes from.
        """
        declared = create_input_dict_v1(self.inputs)
        if self.hidden:
            declared["hidden"] = {kind.name: (kind.value,) for kind in self.hidden}
        templates = [o.template.template_id if isinstance(o, MatchType.Output) else None for o in self.outputs]
        return NodeInfoV1(
            input=declared,
            input_order={category: list(items) for category, items in declared.items()},
            is_input_list=self.is_input_list,
            output=[o.io_type for o in self.outputs],
            output_is_list=[o.is_output_list for o in self.outputs],
            output_name=[o.display_name or o.io_type for o in self.outputs],
            output_tooltips=[o.tooltip or None for o in self.outputs],
            output_matchtypes=templates if any(isinstance(o, MatchType.Output) for o in self.outputs) else None,
            name=self.node_id,
            display_name=self.display_name,
            description=self.description,
            python_module=getattr(cls, "RELATIVE_PYTHON_MODULE", "nodes"),
            category=self.category,
            output_node=self.is_output_node,
            deprecated=self.is_deprecated,
            experimental=self.is_experimental,
            dev_only=self.is_dev_only,
            api_node=self.is_api_node,
            price_badge=self.price_badge.as_dict(self.inputs) if self.price_badge is not None else None,
            search_aliases=self.search_aliases or None,
            essentials_category=self.essentials_category,
            has_intermediate_output=self.has_intermediate_output,
        )
