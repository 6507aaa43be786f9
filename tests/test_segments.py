"""Memory that is written again: never under a reader, by whoever needs it, and given back when nobody does."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from discomfort.object_store import RunStore, StoreFull, UnknownKeyError, files, memory, room, segments

from discomfort import object_store

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has shared memory as files")

SHM = "/dev/shm" if os.path.isdir("/dev/shm") else None
MB = 2**20


@pytest.fixture
def roots(data_roots: tuple[str, str]) -> object_store.Roots:
    """Roots of this test's own."""
    return object_store.find_roots()


@pytest.fixture
def run(roots: object_store.Roots) -> Iterator[RunStore]:
    with RunStore.create(roots) as made:
        yield made


def filled(number: int, size: int = 2 * MB) -> np.ndarray[Any, Any]:
    """An array of ``size`` bytes that all say ``number``."""
    return np.full(size, number, np.uint8)


def is_filled(array: np.ndarray[Any, Any], number: int, size: int = 2 * MB) -> bool:
    return len(array) == size and bool((array == number).all())


def inode(run: RunStore, key: str) -> int:
    info = run.info(key)
    assert info is not None
    return os.stat(info.path).st_ino


def segment_names(run: RunStore) -> list[str]:
    return sorted(path.name for path in pool_folder(run).iterdir())


def pool_folder(run: RunStore) -> Path:
    """The folder of a run that was given no lender."""
    return next(Path(os.environ["DISCOMFORT_RAM_ROOT"]).glob(f"*/run-{run.run_id}/pool"))


class Reader:
    """Another process that is attached to a run. It loads, keeps, looks again and drops when it is told to."""

    def __init__(self, run: RunStore) -> None:
        code = """
            import sys
            import numpy as np
            from discomfort.object_store import RunStore, find_roots
            run = RunStore.attach(find_roots(), sys.argv[1])
            for line in sys.stdin:
                word, *arguments = line.split()
                if word == "load":
                    value = run.get(arguments[0])
                elif word == "save":
                    run.put(arguments[0], np.full(int(arguments[2]), int(arguments[1]), np.uint8))
                elif word == "drop":
                    value = None
                elif word == "write":
                    value[:] = int(arguments[0])
                elif word == "trim":
                    run._room.pool.trim(0)
                elif word == "look":
                    print(sorted(set(value.tolist())), end=" ")
                print("done", flush=True)
        """
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), run.run_id],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
        )

    def do(self, command: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer.endswith("done\n"), f"the reader ended with {self.process.wait()}"
        return answer[:-5].strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def reader(run: RunStore) -> Iterator[Reader]:
    made = Reader(run)
    yield made
    made.kill()


# --- written again ------------------------------------------------------------------------------------------------


def test_a_loop_writes_into_the_memory_it_has(run: RunStore) -> None:
    inodes = set()
    for number in range(20):
        run.put("image", filled(number))
        inodes.add(inode(run, "image"))
        assert is_filled(run.get("image"), number)
    # One that is the value, and one that the next value is written into.
    assert len(inodes) == 2
    assert len(segment_names(run)) == 2


def test_an_object_of_about_the_same_size_takes_it_too_and_another_does_not(run: RunStore) -> None:
    run.put("a", filled(1, 4 * MB))
    first = inode(run, "a")
    run.delete("a")
    run.put("b", filled(2, 4 * MB - 300_000))
    assert inode(run, "b") == first
    assert is_filled(run.get("b"), 2, 4 * MB - 300_000)
    info = run.info("b")
    assert info is not None
    assert info.size < 4 * MB - 200_000  # what is told is the object's size, not its segment's
    run.delete("b")
    run.put("c", filled(3, 2 * MB))  # would waste half of it
    run.put("d", filled(4, 5 * MB))  # does not fit
    assert first not in (inode(run, "c"), inode(run, "d"))


def test_small_objects_are_files_of_their_own(run: RunStore) -> None:
    run.put("small", filled(1, 60_000))
    assert segment_names(run) == []


def test_any_process_writes_into_what_another_left(run: RunStore, reader: Reader) -> None:
    reader.do(f"save image 5 {2 * MB}")
    first = inode(run, "image")
    run.delete("image")
    time.sleep(1.1)  # others' segments are looked for about once a second
    run.put("image", filled(6))
    assert inode(run, "image") == first
    reader.do("load image")
    assert reader.do("look") == "[6]"


def test_what_a_killed_process_left_is_written_again(run: RunStore, reader: Reader) -> None:
    reader.do(f"save image 5 {2 * MB}")
    first = inode(run, "image")
    reader.kill()
    run.put("other", filled(1))
    run.delete("image")
    time.sleep(1.1)
    run.put("image", filled(6))
    assert inode(run, "image") == first


def test_a_filesystem_without_hard_links_stores_all_the_same(run: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    for number in range(3):
        run.put("image", filled(number))
        assert is_filled(run.get("image"), number)
    assert segment_names(run) == []


# --- never while somebody looks -----------------------------------------------------------------------------------


def test_memory_that_somebody_has_mapped_is_not_written(run: RunStore, reader: Reader) -> None:
    run.put("image", filled(1))
    first = inode(run, "image")
    reader.do("load image")
    for number in range(2, 8):
        run.put("image", filled(number))
        assert inode(run, "image") != first
    assert reader.do("look") == "[1]"
    assert run.usage().held_bytes >= 2 * MB
    reader.do("drop")
    used = set()
    for number in range(8, 14):
        run.put("image", filled(number))
        used.add(inode(run, "image"))
    assert first in used
    assert run.usage().held_bytes == 0


def test_a_killed_reader_holds_nothing(run: RunStore, reader: Reader) -> None:
    run.put("image", filled(1))
    first = inode(run, "image")
    reader.do("load image")
    run.put("image", filled(2))
    reader.kill()
    assert run.usage().held_bytes == 0
    run.put("image", filled(3))
    assert inode(run, "image") == first


def test_what_a_reader_wrote_into_its_copy_does_not_come_back(run: RunStore, reader: Reader) -> None:
    run.put("image", filled(1))
    reader.do("load image")
    reader.do("write 99")
    for number in range(2, 6):
        run.put("image", filled(number))
    assert reader.do("look") == "[99]"
    reader.do("load image")
    assert reader.do("look") == "[5]"
    assert is_filled(run.get("image"), 5)


def test_a_part_of_a_value_holds_its_memory_and_the_last_one_lets_it_go(run: RunStore) -> None:
    run.put("image", filled(1))
    part = run.get("image")[100:200]
    for number in range(2, 6):
        run.put("image", filled(number))
    assert set(part.tolist()) == {1}
    assert run.usage().held_bytes >= 2 * MB
    del part
    assert run.usage().held_bytes == 0


def test_a_value_that_is_held_for_later_is_not_written_over(run: RunStore) -> None:
    run.put("image", filled(1))
    held = run.hold("image")
    for number in range(2, 6):
        run.put("image", filled(number))
    run.restore(held)
    assert is_filled(run.get("image"), 1)


def test_a_reader_that_opened_what_is_given_back_takes_the_new_value(
    run: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.put("image", filled(1))
    real = os.fstat
    replaced = False

    def replace_before(fd: int) -> os.stat_result:
        nonlocal replaced
        if not replaced and "/objects/" in os.readlink(f"/proc/self/fd/{fd}"):
            replaced = True
            run.put("image", filled(2))
            segments.SegmentPool(files.Folder.open_private(str(pool_folder(run)))).trim(0)
        return real(fd)

    monkeypatch.setattr(os, "fstat", replace_before)
    assert is_filled(run.get("image"), 2)
    assert replaced


def test_a_claimed_segment_is_nobody_elses(run: RunStore) -> None:
    run.put("image", filled(1))
    run.delete("image")
    folder = files.Folder.open_private(str(pool_folder(run)))
    mine, theirs = segments.SegmentPool(folder), segments.SegmentPool(folder)
    claim = mine.claim(2 * MB)
    assert claim is not None
    assert theirs.claim(2 * MB) is None
    theirs.trim(0)
    assert len(segment_names(run)) == 1  # it is not given back under its writer
    claim.close()
    again = theirs.claim(2 * MB)
    assert again is not None
    again.close()


def test_a_segment_that_was_given_back_before_its_lock_was_renewed_is_noticed(run: RunStore) -> None:
    # The kernel gives an exclusive lock up before it grants the shared one. Here somebody comes in between.
    run.put("image", filled(1))
    run.delete("image")
    pool = segments.SegmentPool(files.Folder.open_private(str(pool_folder(run))))
    claim = pool.claim(2 * MB)
    assert claim is not None
    files.unlock_fd(claim.fd)
    pool.trim(0)
    with pytest.raises(segments.SegmentLostError):
        claim.seal()
    claim.close()
    assert segment_names(run) == []


def test_a_segment_that_was_published_between_the_look_and_the_lock_is_not_taken(
    run: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.put("image", filled(1))
    run.delete("image")
    pool = segments.SegmentPool(files.Folder.open_private(str(pool_folder(run))))
    real = segments.lock_fd
    is_published = False

    def publish_first(fd: int, wait: bool, shared: bool = False) -> bool:
        nonlocal is_published
        if not is_published:
            is_published = True
            run.put("image", filled(2))
        return real(fd, wait, shared)

    monkeypatch.setattr(segments, "lock_fd", publish_first)
    assert pool.claim(2 * MB) is None
    assert is_published
    assert len(segment_names(run)) == 1
    assert is_filled(run.get("image"), 2)


def test_memory_that_another_process_took_at_the_last_moment_is_not_taken_twice(
    roots: object_store.Roots, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunStore.create(roots, ram_limit=10 * MB) as run:
        reader = Reader(run)
        real = segments.SegmentPool.create
        took = False

        def take_first(pool: segments.SegmentPool) -> segments.Claim:
            nonlocal took
            if not took:
                took = True
                reader.do(f"save other 7 {6 * MB}")
            return real(pool)

        monkeypatch.setattr(segments.SegmentPool, "create", take_first)
        run.put("image", filled(1, 6 * MB))
        reader.kill()
        assert took
        assert (where(run, "other"), where(run, "image")) == ("ram", "disk")
        assert run.usage().ram_bytes + run.usage().idle_bytes <= run.ram_capacity
        assert is_filled(run.get("image"), 1, 6 * MB)


def test_a_writer_that_lost_its_segment_writes_the_value_elsewhere(
    run: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.put("image", filled(1))
    run.delete("image")
    real = segments.Claim.seal
    losses = 1

    def lose(claim: segments.Claim) -> None:
        nonlocal losses
        if losses:
            losses -= 1
            files.unlock_fd(claim.fd)
            segments.SegmentPool(files.Folder.open_private(str(pool_folder(run)))).trim(0)
        real(claim)

    monkeypatch.setattr(segments.Claim, "seal", lose)
    run.put("image", filled(2))
    assert losses == 0
    assert is_filled(run.get("image"), 2)


def test_a_writer_killed_while_it_writes_again_leaves_the_old_value(run: RunStore, roots: object_store.Roots) -> None:
    run.put("image", filled(1))
    code = """
        import os, sys
        import numpy as np
        from discomfort.object_store import RunStore, file_format, find_roots
        run = RunStore.attach(find_roots(), sys.argv[1])
        run.put("other", np.full(2 * 2**20, 7, np.uint8))
        run.delete("other")
        class Hasher:
            def __init__(self):
                self.count = 0
            def update(self, data):
                self.count += 1
                if self.count == 4:  # in the middle of the array, in memory that is written again
                    os.kill(os.getpid(), 9)
        file_format._xxh3_factory = Hasher
        run.put("image", np.full(2 * 2**20, 2, np.uint8))
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(code), run.run_id], cwd="/", check=False)
    assert killed.returncode == -signal.SIGKILL
    assert is_filled(run.get("image"), 1)
    assert run.usage().held_bytes == 0
    assert run.usage().idle_bytes >= 2 * MB  # what it was writing into is free again
    run.put("image", filled(3))
    assert is_filled(run.get("image"), 3)


def test_names_that_a_writer_killed_while_publishing_left_are_removed(run: RunStore) -> None:
    run.put("image", filled(1))
    run.delete("image")
    folder = pool_folder(run)
    (name,) = segment_names(run)
    os.link(folder / name, folder / f"{'0' * 32}.tmp")
    old = time.time() - 60
    os.utime(folder / name, (old, old))
    assert run.usage().idle_bytes == 0  # it has two names: nobody can tell that it is no value
    RunStore.attach(object_store.find_roots(), run.run_id).close()
    assert segment_names(run) == [name]
    assert run.usage().idle_bytes >= 2 * MB


def test_a_failure_while_writing_again_leaves_the_old_value_and_the_segment(run: RunStore) -> None:
    run.put("image", filled(1))
    run.put("image", filled(2))
    names = segment_names(run)

    class Stops(np.ndarray[Any, Any]):
        def __reduce_ex__(self, protocol: Any) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.put("image", [filled(3), np.zeros(3).view(Stops)])
    assert is_filled(run.get("image"), 2)
    assert segment_names(run) == names
    run.put("image", filled(4))
    assert segment_names(run) == names


# --- given back ---------------------------------------------------------------------------------------------------


def test_idle_memory_is_bounded_and_counted_apart(roots: object_store.Roots) -> None:
    with RunStore.create(roots, ram_limit=40 * MB) as run:
        for number in range(15):
            run.put(str(number), filled(number))
        assert run.usage().idle_bytes == 0
        for number in range(14):
            run.delete(str(number))
        usage = run.usage()
        assert usage.idle_bytes >= 28 * MB
        assert usage.ram_bytes < 3 * MB
        time.sleep(1.1)  # it is looked at about once a second
        run.put("small", filled(0, 1000))
        assert run.usage().idle_bytes <= 10 * MB  # a quarter of what the run may use


def test_idle_memory_goes_back_after_a_while(run: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    run.put("image", filled(1))
    run.delete("image")
    assert run.usage().idle_bytes > 0
    monkeypatch.setattr(segments, "IDLE_SECONDS", 0.5)
    time.sleep(1.1)
    run.put("small", filled(0, 1000))
    assert run.usage().idle_bytes == 0
    assert segment_names(run) == []


def test_idle_memory_makes_room_before_anything_goes_to_disk(roots: object_store.Roots) -> None:
    with RunStore.create(roots, ram_limit=10 * MB) as run:
        for number in range(4):
            run.put(str(number), filled(number))
        for number in range(4):
            run.delete(str(number))
        run.put("large", filled(1, 9 * MB))
        info = run.info("large")
        assert info is not None
        assert info.storage_type == "ram"
        assert run.usage().disk_fallbacks == 0


def test_memory_given_back_by_one_process_is_free_although_another_keeps_it_mapped(
    run: RunStore, reader: Reader
) -> None:
    for number in range(3):
        reader.do(f"save image {number} {8 * MB}")  # it has a mapping for writing by now
    run.delete("image")
    before = os.statvfs(pool_folder(run)).f_bfree
    segments.SegmentPool(files.Folder.open_private(str(pool_folder(run)))).trim(0)
    assert segment_names(run) == []
    assert (os.statvfs(pool_folder(run)).f_bfree - before) * os.statvfs(pool_folder(run)).f_frsize > 12 * MB
    reader.do(f"save image 9 {8 * MB}")  # and that one notices
    assert is_filled(run.get("image"), 9, 8 * MB)


def test_what_is_held_counts_and_is_named_when_it_leaves_no_room(
    roots: object_store.Roots, caplog: pytest.LogCaptureFixture
) -> None:
    with RunStore.create(roots, ram_limit=10 * MB) as run:
        kept = []
        for number in range(4):
            run.put("image", filled(number))
            kept.append(run.get("image"))
        with caplog.at_level(logging.WARNING):
            run.put("more", filled(9, 4 * MB))
        info = run.info("more")
        assert info is not None
        assert info.storage_type == "disk"
        assert "by values that are still held" in caplog.text
        assert [is_filled(array, number) for number, array in enumerate(kept)] == [True] * 4
        assert run.usage().ram_bytes <= run.ram_capacity
        kept.clear()
        time.sleep(0.2)  # where everything was full, room is not looked for all the time
        run.put("more", filled(9, 4 * MB))
        info = run.info("more")
        assert info is not None
        assert info.storage_type == "ram"


def test_closing_gives_everything_back_at_once_although_another_process_keeps_it_mapped(
    roots: object_store.Roots,
) -> None:
    run = RunStore.create(roots)
    reader = Reader(run)
    try:
        for number in range(3):
            reader.do(f"save image {number} {8 * MB}")
        before = os.statvfs(str(roots.ram)).f_bfree
        run.close()
        status = os.statvfs(str(roots.ram))
        assert (status.f_bfree - before) * status.f_frsize > 12 * MB
    finally:
        reader.kill()


def test_closing_returns_all_descriptors_and_mappings(roots: object_store.Roots) -> None:
    def mapped() -> int:
        return Path("/proc/self/maps").read_text().count("/pool/")

    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    with RunStore.create(roots) as run:
        for number in range(5):
            run.put("image", filled(number))
        assert mapped() > 0
    assert mapped() == 0
    assert descriptors() == before


def test_a_process_keeps_a_bounded_number_of_mappings(roots: object_store.Roots) -> None:
    with RunStore.create(roots) as run:
        for _ in range(2):
            for number in range(100):
                run.put(str(number), filled(number % 256, 70_000 + number))
            for number in range(100):
                run.delete(str(number))
        assert 0 < Path("/proc/self/maps").read_text().count("/pool/") <= 64


def test_segments_that_were_given_back_are_forgotten(run: RunStore) -> None:
    pool = run._room.pool
    assert pool is not None
    for number in range(100):
        run.put("image", filled(number, 70_000 + 5000 * number))
        if number % 10 == 0:
            pool.trim(0)
    pool.trim(0)
    time.sleep(1.1)  # it is looked at about once a second
    run.put("other", filled(1, 8 * MB))
    assert len(pool._known) == len(segment_names(run)) == 2


def test_a_forked_child_writes_its_own_way(run: RunStore) -> None:
    for number in range(3):
        run.put("image", filled(number))
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            run.put("child", filled(7))
            run.put("child", filled(8))
            run.put("child", filled(9))
            status = 0 if is_filled(run.get("child"), 9) else 2
        finally:
            os._exit(status)
    for number in range(50):
        run.put("image", filled(number))
        assert is_filled(run.get("image"), number)
    assert os.waitpid(pid, 0)[1] == 0
    assert is_filled(run.get("child"), 9)


# --- lent -----------------------------------------------------------------------------------------------------------


def test_runs_that_borrow_write_into_the_memory_of_the_ones_before(roots: object_store.Roots) -> None:
    with RunStore.create(roots) as lender:
        inodes = set()
        for number in range(6):
            with RunStore.create(roots, lender=lender) as run:
                run.put("image", filled(number))
                assert is_filled(RunStore.attach(roots, run.run_id).get("image"), number)
                inodes.add(inode(run, "image"))
        assert len(inodes) == 1
        assert lender.list_keys() == []
        assert lender.usage().idle_bytes >= 2 * MB


def test_what_a_lender_has_idle_does_not_make_the_next_run_smaller(roots: object_store.Roots) -> None:
    with RunStore.create(roots, ram_limit=40 * MB) as lender:
        for number in range(3):
            with RunStore.create(roots, ram_limit=8 * MB, lender=lender) as run:
                # A quarter of the lender's memory may be idle, not of the borrower's.
                for name in "abc":
                    run.put(name, filled(number))
                with RunStore.attach(roots, run.run_id) as attached:
                    attached._room.measure()
                run._room.measure()
            assert lender.idle_bytes() >= 6 * MB
        free = os.statvfs(str(roots.ram)).f_bavail * os.statvfs(str(roots.ram)).f_frsize
        with RunStore.create(roots, lender=lender) as run:
            assert run.ram_capacity > free


def test_an_attached_process_keeps_its_mappings_from_run_to_run(roots: object_store.Roots) -> None:
    with RunStore.create(roots) as lender:
        mappings = set()
        for number in range(4):
            with RunStore.create(roots, lender=lender) as run:
                attached = RunStore.attach(roots, run.run_id)
                attached.put("image", filled(number))
                attached.put("image", filled(number + 1))
                mappings |= {line for line in Path("/proc/self/maps").read_text().splitlines() if "/pool/" in line}
                attached.close()
        assert len({line.split("-")[0] for line in mappings}) == 2


def test_a_lender_may_end_first(roots: object_store.Roots) -> None:
    lender = RunStore.create(roots)
    with RunStore.create(roots, lender=lender) as run:
        run.put("image", filled(1))
        loaded = run.get("image")
        lender.close()
        assert is_filled(run.get("image"), 1)
        for number in range(2, 6):
            run.put("image", filled(number))
            assert is_filled(run.get("image"), number)
        assert is_filled(loaded, 1)
        assert is_filled(RunStore.attach(roots, run.run_id).get("image"), 5)


def test_a_killed_lender_harms_nobody(roots: object_store.Roots) -> None:
    code = """
        import sys, time
        from discomfort.object_store import RunStore, find_roots
        lender = RunStore.create(find_roots())
        print(lender.run_id, flush=True)
        sys.stdin.read()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/"
    )
    assert process.stdout is not None
    lender = RunStore.attach(roots, process.stdout.readline().strip())
    with RunStore.create(roots, lender=lender) as run:
        run.put("image", filled(1))
        process.kill()
        process.communicate()
        assert len(object_store.sweep(roots)) == 2  # in memory and on disk
        assert is_filled(run.get("image"), 1)
        run.put("image", filled(2))
        run.put("image", filled(3))
        assert is_filled(run.get("image"), 3)


def test_a_lender_that_is_gone_lends_nothing(roots: object_store.Roots) -> None:
    owner = RunStore.create(roots)
    lender = RunStore.attach(roots, owner.run_id)
    owner.close()
    assert lender.idle_bytes() == 0
    with RunStore.create(roots, lender=lender) as run:
        run.put("image", filled(1))
        assert is_filled(RunStore.attach(roots, run.run_id).get("image"), 1)
    lender.close()


def test_a_run_that_cannot_be_finished_leaves_nothing(
    roots: object_store.Roots, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite

    def fail(fd: int, data: Any, offset: int) -> int:
        if "run.json" in os.readlink(f"/proc/self/fd/{fd}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(OSError, match="No space"):
        RunStore.create(roots)
    assert [str(path) for root in (roots.ram, roots.disk) for path in Path(str(root)).rglob("*")] == []


# --- cold objects -------------------------------------------------------------------------------------------------


@pytest.fixture
def cold_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "COLD_SECONDS", 0.05)


def where(run: RunStore, key: str) -> str:
    info = run.info(key)
    assert info is not None
    return info.storage_type


def digest(run: RunStore, key: str) -> str:
    info = run.info(key)
    assert info is not None
    return info.digest


@pytest.mark.usefixtures("cold_at_once")
def test_what_nobody_used_for_a_while_makes_room_the_coldest_first(
    roots: object_store.Roots, caplog: pytest.LogCaptureFixture
) -> None:
    with RunStore.create(roots, ram_limit=10 * MB) as run:
        for number in range(4):
            run.put(str(number), filled(number))
        digests = [digest(run, str(number)) for number in range(4)]
        time.sleep(0.02)
        run.get("0")  # used last, although saved first
        time.sleep(0.1)
        with caplog.at_level(logging.INFO):
            run.put("new", filled(9, 3 * MB))
            time.sleep(0.1)
            run.put("newer", filled(8, 3 * MB))
        assert where(run, "new") == where(run, "newer") == "ram"
        assert where(run, "1") == "disk"
        assert where(run, "0") == "ram"
        for number in range(4):
            assert is_filled(run.get(str(number)), number)
        assert digests == [digest(run, str(number)) for number in range(4)]
        assert run.list_keys() == ["0", "1", "2", "3", "new", "newer"]
        assert run.usage().ram_bytes <= 10 * MB
        assert run.usage().disk_bytes >= 4 * MB
        assert run.usage().disk_fallbacks == 0
        lines = [record for record in caplog.records if "went to disk" in record.message]
        assert len(lines) == 1
        for key in run.list_keys():
            run.delete(key)
        assert run.usage().disk_bytes == 0


@pytest.mark.usefixtures("cold_at_once")
def test_looking_at_a_value_is_not_using_it(roots: object_store.Roots) -> None:
    with RunStore.create(roots, ram_limit=10 * MB) as run:
        run.put("looked at", filled(1, 4 * MB))
        run.put("loaded", filled(2, 4 * MB))
        time.sleep(0.1)
        run.get("loaded")
        for _ in range(20):
            run.info("looked at")
            run.list_keys()
            time.sleep(0.01)
        run.get("loaded")
        run.put("new", filled(3, 4 * MB))
        assert [where(run, key) for key in ("looked at", "loaded", "new")] == ["disk", "ram", "ram"]


def test_what_was_just_used_stays_in_memory(roots: object_store.Roots) -> None:
    with RunStore.create(roots, ram_limit=10 * MB) as run:
        for number in range(4):
            run.put(str(number), filled(number))
        run.put("new", filled(9, 3 * MB))
        assert where(run, "new") == "disk"
        assert [where(run, str(number)) for number in range(4)] == ["ram"] * 4


@pytest.mark.usefixtures("cold_at_once")
def test_what_somebody_has_mapped_stays_in_memory(roots: object_store.Roots) -> None:
    with RunStore.create(roots, ram_limit=10 * MB) as run:
        run.put("held", filled(1, 4 * MB))
        held = run.get("held")
        run.put("cold", filled(2, 4 * MB))
        time.sleep(0.1)
        run.put("new", filled(3, 4 * MB))
        assert (where(run, "held"), where(run, "cold"), where(run, "new")) == ("ram", "disk", "ram")
        assert is_filled(held, 1, 4 * MB)


@pytest.mark.usefixtures("cold_at_once")
def test_nothing_moves_where_that_would_not_be_enough(roots: object_store.Roots) -> None:
    with RunStore.create(roots, ram_limit=20 * MB) as run:
        run.put("cold", filled(1, 4 * MB))
        run.put("held", filled(2, 12 * MB))
        held = run.get("held")
        time.sleep(0.1)
        run.get("held")
        run.put("new", filled(3, 19 * MB))
        assert (where(run, "cold"), where(run, "new")) == ("ram", "disk")
        del held


@pytest.mark.usefixtures("cold_at_once")
def test_readers_never_miss_a_value_that_moves(roots: object_store.Roots) -> None:
    code = """
        import sys
        from discomfort.object_store import RunStore, find_roots
        run = RunStore.attach(find_roots(), sys.argv[1])
        print("ready", flush=True)
        count = 0
        while run.has("go on"):
            for number in range(4):
                value = run.get(str(number))
                assert len(value) == 2 * 2**20 and (value[::4096] == number).all(), number
                del value
            count += 1
        print(count)
    """
    with RunStore.create(roots, ram_limit=10 * MB) as run:
        run.put("go on", True)
        for number in range(4):
            run.put(str(number), filled(number))
        readers = [
            subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(code), run.run_id], stdout=subprocess.PIPE, text=True, cwd="/"
            )
            for _ in range(2)
        ]
        for process in readers:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for _ in range(25):
            run.put("new", filled(9, 6 * MB))
            run.delete("new")
            for number in range(4):
                run.put(str(number), filled(number))
        run.delete("go on")
        for process in readers:
            out, _ = process.communicate(timeout=60)
            assert process.returncode == 0
            assert int(out) > 0


@pytest.mark.usefixtures("cold_at_once")
def test_a_value_replaced_while_it_moves_keeps_the_new_one(
    roots: object_store.Roots, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunStore.create(roots, ram_limit=10 * MB) as run:
        run.put("cold", filled(1, 4 * MB))
        run.put("cold too", filled(2, 4 * MB))
        time.sleep(0.1)
        other = RunStore.attach(roots, run.run_id)
        real = files.os.preadv
        replaced = False

        def replace_first(fd: int, buffers: Any, offset: int) -> int:
            nonlocal replaced
            if not replaced:
                replaced = True
                other.put("cold", filled(7, 100_000))
            return real(fd, buffers, offset)

        monkeypatch.setattr(os, "preadv", replace_first)
        run.put("new", filled(3, 4 * MB))
        assert replaced
        assert is_filled(run.get("cold"), 7, 100_000)
        assert is_filled(run.get("cold too"), 2, 4 * MB)
        assert is_filled(run.get("new"), 3, 4 * MB)
        other.close()
        for key in run.list_keys():
            run.delete(key)
        assert run.usage().disk_bytes == 0


@pytest.mark.usefixtures("cold_at_once")
def test_a_full_disk_leaves_cold_values_where_they_are(
    roots: object_store.Roots, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite

    def full(fd: int, data: Any, offset: int) -> int:
        if roots.disk in os.readlink(f"/proc/self/fd/{fd}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data, offset)

    with RunStore.create(roots, ram_limit=10 * MB) as run:
        run.put("cold", filled(1, 8 * MB))
        time.sleep(0.1)
        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(StoreFull):
            run.put("new", filled(2, 8 * MB))
        assert where(run, "cold") == "ram"
        assert is_filled(run.get("cold"), 1, 8 * MB)
        with pytest.raises(UnknownKeyError):
            run.get("new")
        assert run.usage().disk_bytes == 0


@pytest.mark.usefixtures("cold_at_once")
def test_memory_that_the_whole_system_lacks_is_made_room_for_too(
    roots: object_store.Roots, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunStore.create(roots) as run:
        run.put("cold", filled(1, 20 * MB))
        time.sleep(0.1)
        monkeypatch.setattr(memory, "free_ram_bytes", lambda: (140 if where(run, "cold") == "ram" else 160) * MB)
        run.put("new", filled(2, 20 * MB))
        assert (where(run, "cold"), where(run, "new")) == ("disk", "ram")


# --- many at once -------------------------------------------------------------------------------------------------


def wait_until(condition: Callable[[], Any], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.005)


def test_writers_readers_and_those_who_give_back_do_not_meet(roots: object_store.Roots) -> None:
    code = """
        import os, random, sys
        import numpy as np
        from discomfort.object_store import RunStore, UnknownKeyError, find_roots
        run, part = RunStore.attach(find_roots(), sys.argv[1]), sys.argv[2]
        chance, held, count = random.Random(os.getpid()), [], 0
        while run.has("go on"):
            key = str(chance.randrange(4))
            if part == "write":
                size, seed = chance.choice([70_000, 1_000_000, 1_010_000, 4_000_000]), chance.randrange(256)
                run.put(key, (size, seed, np.full(size, seed, np.uint8)))
            elif part == "read":
                try:
                    held.append(run.get(key))
                except UnknownKeyError:
                    continue
                for size, seed, array in [held[-1], held[0]]:
                    assert len(array) == size and (array == seed).all(), "torn"
                if len(held) > 8:
                    held.pop(chance.randrange(8))[2][:] += 1
            else:
                run._room.pool.trim(chance.choice([0, 5_000_000]))
            count += 1
        print(count)
    """
    with RunStore.create(roots, ram_limit=100 * MB) as run:
        run.put("go on", True)
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(code), run.run_id, part],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd="/",
            )
            for part in ("write", "write", "read", "read", "give back")
        ]
        time.sleep(4)
        assert [process.communicate()[1] for process in processes if process.poll() is not None] == []
        assert run.usage().ram_bytes + run.usage().idle_bytes <= run.ram_capacity + 10 * MB
        run.delete("go on")
        for process in processes:
            out, err = process.communicate(timeout=60)
            assert process.returncode == 0, err
            assert int(out) > 3
        run._room.measure()
        assert run.usage().held_bytes == 0
