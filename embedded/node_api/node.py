"""The base class of V3 nodes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from .hidden import HiddenHolder, V3Data
from .node_class import COPY_MARK, classproperty, first_real_override, is_class, shallow_clone_class
from .node_output import NodeOutput, NodeOutputBase
from .schema import Schema


def _not_defined(cls: type, name: str) -> NotImplementedError:
    """The error of a class method that a node class has to define itself before it can be called."""
    return NotImplementedError(f"{cls.__name__} has no {name}() of its own: define it in the node's class")


class ComfyNodeInternal:
    """Base of all V3 nodes, whatever version of the API (``_ComfyNodeInternal`` in ComfyUI)."""

    @classmethod
    def GET_NODE_INFO_V1(cls) -> dict[str, Any]:
        """The node in /object_info."""
        raise _not_defined(cls, "GET_NODE_INFO_V1")


class _FromSchema:
    """A V1 attribute of the class, answered by the schema it had when it was asked for last."""

    def __init__(self, read: Callable[[Schema], Any]) -> None:
        self._read = read

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self._read(owner.SCHEMA or owner.GET_SCHEMA())


class ComfyNodeBase(ComfyNodeInternal):
    """What the server asks a V3 node class (``_ComfyNodeBaseInternal`` in ComfyUI)."""

    # Where it comes from, as /object_info says it; set when its package is loaded.
    RELATIVE_PYTHON_MODULE: Any = None
    # The finalized schema, None before it was first asked for. Of this very class: see __init_subclass__.
    SCHEMA: Any = None
    # What the call is told beside its inputs; on the class a call runs on.
    hidden: Any = None

    def __init__(self) -> None:
        type(self).VALIDATE_CLASS()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # A node derived from another node has a schema of its own; only a copy of a class shares it.
        if COPY_MARK not in cls.__dict__:
            cls.SCHEMA = None

    # -- for authors (with the parameters their inputs have: *args is there for type checkers) -

    @classmethod
    def define_schema(cls) -> Schema:
        """What the node says of itself. Has to be overridden."""
        raise _not_defined(cls, "define_schema")

    @classmethod
    def execute(cls, *args: Any, **kwargs: Any) -> Any:
        """Run the node: its inputs by name, a :class:`NodeOutput`. Has to be overridden; may be a coroutine."""
        raise _not_defined(cls, "execute")

    @classmethod
    def validate_inputs(cls, *args: Any, **kwargs: Any) -> bool | str:
        """Check constant inputs before the prompt runs: True, or what is wrong. V1's VALIDATE_INPUTS."""
        raise _not_defined(cls, "validate_inputs")

    @classmethod
    def fingerprint_inputs(cls, *args: Any, **kwargs: Any) -> Any:
        """What the result depends on beside the inputs: the node runs again when it changes. V1's IS_CHANGED."""
        raise _not_defined(cls, "fingerprint_inputs")

    @classmethod
    def check_lazy_status(cls, *args: Any, **kwargs: Any) -> list[str]:
        """The names of lazy inputs that are needed now; all that are not there. Only called when overridden."""
        return [name for name, value in kwargs.items() if value is None]

    # -- for the server ------------------------------------------------------------------------------------------

    @classmethod
    def GET_BASE_CLASS(cls) -> Any:
        """The class whose methods above are placeholders."""
        return ComfyNodeBase

    @classmethod
    def VALIDATE_CLASS(cls) -> None:
        """Raises an Exception if the class has no schema or nothing to run."""
        for name in ("define_schema", "execute"):
            if first_real_override(cls, name) is None:
                raise Exception(f"No {name} function was defined for node class {cls.__name__}.")

    @classmethod
    def FINALIZE_SCHEMA(cls) -> Schema:
        """The schema as it is now, finalized."""
        schema = cls.define_schema()
        schema.finalize()
        return schema

    @classmethod
    def GET_SCHEMA(cls) -> Schema:
        """The schema as it is now, finalized and checked, and kept for the attributes below.

        Raises:
            ValueError: it is not valid.
            Exception: the class has none, or nothing to run.
        """
        cls.VALIDATE_CLASS()
        schema = cls.FINALIZE_SCHEMA()
        schema.validate()
        # Not by assignment, which the locked class of a call refuses.
        type.__setattr__(cls, "SCHEMA", schema)
        return schema

    @classmethod
    def PREPARE_CLASS_CLONE(cls, v3_data: V3Data | None) -> Any:
        """A copy of the class for one call, with its hidden values."""
        clone = shallow_clone_class(cls if is_class(cls) else type(cls))
        clone.hidden = HiddenHolder.from_v3_data(v3_data)
        return clone

    @classmethod
    def EXECUTE_NORMALIZED(cls, *args: Any, **kwargs: Any) -> NodeOutputBase:
        """Run ``execute``; its result as a NodeOutput."""
        return cls._checked(NodeOutput.of(cls.execute(*args, **kwargs)))

    @classmethod
    async def EXECUTE_NORMALIZED_ASYNC(cls, *args: Any, **kwargs: Any) -> NodeOutputBase:
        """Run a coroutine ``execute``; its result as a NodeOutput."""
        return cls._checked(NodeOutput.of(await cls.execute(*args, **kwargs)))

    @classmethod
    def _checked(cls, output: Any) -> NodeOutputBase:
        """A result, unless it expands where the schema does not say so."""
        if output.expand is not None and not (cls.SCHEMA or cls.GET_SCHEMA()).enable_expand:
            raise Exception(
                f"Node {cls.__name__} is not expandable, but expand included in NodeOutput; developer should set "
                "enable_expand=True on node's Schema to allow this."
            )
        result: NodeOutputBase = output
        return result

    # -- as V1 has it --------------------------------------------------------------------------------------------

    @classmethod
    def GET_NODE_INFO_V1(cls) -> dict[str, Any]:
        """The node in /object_info, made anew: what a schema lists may have changed."""
        return asdict(cls.GET_SCHEMA().get_v1_info(cls))

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs as V1 declares them, made anew; dynamic ones as they are in the schema."""
        declared = cls.FINALIZE_SCHEMA().get_v1_info(cls).input
        return declared or {}

    @classproperty
    def FUNCTION(cls) -> str:
        """The name of the method the executor calls."""
        is_async = inspect.iscoroutinefunction(cls.execute)
        return "EXECUTE_NORMALIZED_ASYNC" if is_async else "EXECUTE_NORMALIZED"

    DESCRIPTION = _FromSchema(lambda schema: schema.description)
    CATEGORY = _FromSchema(lambda schema: schema.category)
    EXPERIMENTAL = _FromSchema(lambda schema: schema.is_experimental)
    DEPRECATED = _FromSchema(lambda schema: schema.is_deprecated)
    DEV_ONLY = _FromSchema(lambda schema: schema.is_dev_only)
    API_NODE = _FromSchema(lambda schema: schema.is_api_node)
    OUTPUT_NODE = _FromSchema(lambda schema: schema.is_output_node)
    HAS_INTERMEDIATE_OUTPUT = _FromSchema(lambda schema: schema.has_intermediate_output)
    INPUT_IS_LIST = _FromSchema(lambda schema: schema.is_input_list)
    OUTPUT_IS_LIST = _FromSchema(lambda schema: [o.is_output_list for o in schema.outputs])
    RETURN_TYPES = _FromSchema(lambda schema: [o.io_type for o in schema.outputs])
    RETURN_NAMES = _FromSchema(lambda schema: [o.display_name or o.io_type for o in schema.outputs])
    OUTPUT_TOOLTIPS = _FromSchema(lambda schema: [o.tooltip or None for o in schema.outputs])
    NOT_IDEMPOTENT = _FromSchema(lambda schema: schema.not_idempotent)
    ACCEPT_ALL_INPUTS = _FromSchema(lambda schema: schema.accept_all_inputs)


class ComfyNode(ComfyNodeBase):
    """The base class of V3 nodes: override ``define_schema`` and ``execute``, both class methods."""

    @classmethod
    def GET_BASE_CLASS(cls) -> Any:
        """The class whose methods are placeholders."""
        return ComfyNode
