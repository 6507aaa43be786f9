"""What goes wrong in the store, on purpose.

::

    StoreError
     +-- StoreClosed           the store was shut down, here or by its owner
     +-- StoreCorrupt          a file is not what the format says
     +-- StoreFull             (OSError ENOSPC) neither memory nor disk can hold the object
     +-- StoreInsecure         (PermissionError) a folder or file could have been written by somebody else
     +-- StoreUnserializable   (TypeError) the value cannot be pickled
     +-- StoreUnloadable       the object is whole, but this process cannot rebuild it
     +-- UnknownKeyError       (KeyError) no such key
"""

from __future__ import annotations


class StoreError(Exception):
    """Base of everything the store raises on purpose."""


class StoreClosed(StoreError, RuntimeError):
    """The store was shut down, in this process or by its owner."""


class StoreCorrupt(StoreError):
    """A file of the store is not what the format says."""


class StoreFull(StoreError, OSError):
    """Neither shared memory nor disk can hold the object; the key's previous value is still there."""


class StoreInsecure(StoreError, PermissionError):
    """A folder or file could have been written by another user, so nothing in it is read."""


class StoreUnserializable(StoreError, TypeError):
    """The value cannot be pickled."""


class StoreUnloadable(StoreError):
    """The object is whole, but this process cannot rebuild it (a class or a package is missing)."""


class UnknownKeyError(StoreError, KeyError):
    """No object is stored under the key. Unlike a bare KeyError it prints as a sentence."""

    def __str__(self) -> str:
        return str(self.args[0])
