"""Classes of which there is one instance (``comfy_api.internal.singleton``)."""

from __future__ import annotations

from typing import Any


class SingletonMetaclass(type):
    """Calling the class gives its one instance, made by the first call."""

    _instances: dict[type, Any] = {}  # noqa: RUF012

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return cls.get_instance(*args, **kwargs)

    def get_instance(cls, *args: Any, **kwargs: Any) -> Any:
        """The instance; the arguments are those of the first call."""
        if cls not in SingletonMetaclass._instances:
            SingletonMetaclass._instances[cls] = super().__call__(*args, **kwargs)
        return SingletonMetaclass._instances[cls]

    def inject_instance(cls, instance: Any) -> None:
        """Let this be the instance; only before there is one."""
        if cls in SingletonMetaclass._instances:
            raise AssertionError("Cannot inject instance after first instantiation")
        SingletonMetaclass._instances[cls] = instance


class ProxiedSingleton(metaclass=SingletonMetaclass):
    """Base of such classes."""
