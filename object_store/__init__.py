"""Sealed objects of one run: written once, published whole, read by any process of the same user without a copy.

The model is Plasma's (create, seal, get, release, delete), without a server. An object is a file; writing it and
renaming it into place is "create, seal"; mapping it privately is "get"; dropping the last tensor that lies in the
mapping is "release". Shared memory comes first, a disk folder of the same format stands behind it. The files, not
a process, are the truth: nothing has to run, and a killed process leaves nothing that is half written.

===================  ===============================================================================================
``store.py``         the objects of one run, by key: what the rest of the project uses
``entries.py``       one file for each key: read safely, replaced in one step
``room.py``          how much shared memory a run may take, and what makes way when it is not enough
``segments.py``      memory that is written again
``runs.py``          where runs are; making, finding, listing, sweeping and removing them
``looking.py``       runs, seen from outside: which there are, what is in one
``serializer.py``    values, taken apart: a pickle stream and buffers
``file_format.py``   what is in a file
``object_files.py``  objects outside of any run, each in a file of its own that survives a power cut
``safe_loading.py``  loading what somebody else may have written: plain data, tensors and arrays, nothing that acts
``files.py``         what the operating system gives: private folders, mappings, locks
``memory.py``        how much memory there is
``shared_names.py``  what pickle streams name
``errors.py``        what goes wrong on purpose
===================  ===============================================================================================

Folders
-------
::

    <main root>/<name>-<uid>/run-<32 hex>/     0700, owner checked, never through a symbolic link
        owner.lock      the owner holds an exclusive flock on it for life; pid and start time inside are for humans
        run.json        {"format", "run_id", "disk_path", "ram_capacity", "lender", ...}: what is needed to attach
        publish.lock    flock held for the microseconds in which an entry is replaced or deleted
        ballast         memory kept in reserve, given up page by page so that entries can be written when it is full
        objects/<name>  the key's entry: an object file, a second link to one in pool/, or a stub that names a segment
        pool/           objects above 64 KiB in shared memory, and the memory of former ones (segments.py)
        seg/            files being written (``<32 hex>.tmp``, flock held by the writer), and segments that stubs name
    <disk root>/<name>-<uid>/run-<same id>/    the twin on disk: owner.lock and seg/

The main root is the shared-memory filesystem (``/dev/shm``); where there is none, the disk root takes its place and
there is no twin. An entry's name is the blake2b-128 of the key in hex, so that no key can be a path; the key itself
is in the file. One directory entry is the whole truth about a key, also when its data is on disk. A run that has a
lender keeps its large objects in that run's pool; they are its own all the same, through the links in objects/.

File format (version 2, little endian)
--------------------------------------
::

    offset size
       0     4   magic b"DCOB"
       4     2   format version, 2
       6     2   kind: 1 object, 2 stub
       8     4   flags: bit 0 set = the value is a recipe (pass_by "ref"), bit 1 = it is a list whose items ComfyUI
                 hands to nodes one by one (OUTPUT_IS_LIST)
      12     4   CRC-32 of these 128 bytes with this field 0
      16     4   CRC-32 of key and buffer table
      20     4   number of out-of-band buffers, n
      24     8   length of the object; a file in pool/ may be longer, what follows is left of a former one
      32     8   offset of the pickle stream = 128 + key length + 16 n
      40     8   length of the pickle stream
      48     8   bytes of data: pickle stream and buffers, without padding
      56     4   length of the key
      60     4   digest algorithm: 1 xxh3-128, 2 blake2b-128, 3 unique (no hash was taken; equals nothing else)
      64    16   digest (stub: of the object it stands for)
      80     8   time of saving, nanoseconds since the epoch
      88     4   pid of the writer
      92     4   Python version of the writer, major and minor as 16 bits each
      96    32   zero
     128         key (UTF-8, lone surrogates kept)
     ...         buffer table: n times (offset u64, length u64)
     ...         pickle stream, protocol 5
     ...         buffers: aligned to 64 below 64 KiB, else to 4096; an empty one has offset 0

A stub's "pickle stream" is 41 bytes: ``d`` (segment in the twin) or ``m`` (in the main folder), the segment's 32
hex digits, and its file length as u64. A reader checks everything above before it unpickles anything.

Files up to 64 KiB are read, larger ones are mapped ``MAP_PRIVATE``: the receiver may write into what it got, pays
only for the pages it writes, and never changes what is stored. An overwritten or deleted object lives on for those
who have it mapped: a file is replaced, not written, as long as it is a key's entry or anybody has it mapped.

What may be saved
-----------------
Anything pickle or cloudpickle can handle. The storage of a ``torch.Tensor`` goes out of band, once per storage, so
that views still share memory after loading. A tensor that uses less than half of its storage is stored alone, unless
the whole storage was met before it in the same value; the sharing between two such small views ends. Tensors on other
devices are stored from, and come back on, the CPU. Conjugate and negative views are resolved, a non-leaf tensor comes
back without history. NumPy arrays go out of band by their own means. Values that need cloudpickle (lambdas, classes of
``__main__``) need it on both sides.

The digest covers pickle stream and buffers. Equal content has an equal digest in every process, as long as it is
plain data, tensors and arrays, and all writers have xxhash. Sets, functions, and strings that are one object here
but two elsewhere beside tensors may yield different digests of equal values: harmless, a cache misses.
"""

from __future__ import annotations

from .errors import (
    StoreClosed,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreInsecure,
    StoreUnloadable,
    StoreUnserializable,
    UnknownKeyError,
)
from .file_format import HeldObject
from .files import Folder
from .looking import RunSummary, list_runs, look_into
from .memory import filesystem_type, free_ram_bytes
from .object_files import read_object, write_object
from .runs import Roots, check_run_id, find_roots, sweep
from .safe_loading import UntrustedError, load_object, load_plain_object
from .shared_names import shared_module
from .store import ObjectInfo, RunStore, Usage

__all__ = [
    "Folder",
    "HeldObject",
    "ObjectInfo",
    "Roots",
    "RunStore",
    "RunSummary",
    "StoreClosed",
    "StoreCorrupt",
    "StoreError",
    "StoreFull",
    "StoreInsecure",
    "StoreUnloadable",
    "StoreUnserializable",
    "UnknownKeyError",
    "UntrustedError",
    "Usage",
    "check_run_id",
    "filesystem_type",
    "find_roots",
    "free_ram_bytes",
    "list_runs",
    "load_object",
    "load_plain_object",
    "look_into",
    "read_object",
    "shared_module",
    "sweep",
    "write_object",
]
