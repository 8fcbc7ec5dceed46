"""The journal: whole lines, in order, whatever happens to the process that writes them."""

import asyncio
import errno
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from store import journal as journal_module
from store.journal import Journal, JournalError, line_of
from store.segments import is_abandoned, read_whole_lines, segments
from tests.store.store_samples import call, campaign, turn


def test_records_stand_in_the_file_before_append_returns(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.append(campaign(), turn(1))
        (segment,) = segments(tmp_path / "j")
        assert segment.read_bytes() == line_of(campaign()) + line_of(turn(1))


def test_a_line_is_one_line_whatever_the_text_holds() -> None:
    assert line_of(call()).count(b"\n") == 1


def test_only_whole_lines_are_read(tmp_path: Path) -> None:
    segment = tmp_path / "s.jsonl"
    segment.write_bytes(b"one\ntwo\nthr")
    assert read_whole_lines(segment, 0, 1 << 20) == b"one\ntwo\n"
    assert read_whole_lines(segment, 8, 1 << 20) == b""


def test_a_line_longer_than_the_limit_is_read_whole(tmp_path: Path) -> None:
    segment = tmp_path / "s.jsonl"
    segment.write_bytes(b"x" * 1000 + b"\nshort\n")
    assert read_whole_lines(segment, 0, 16).startswith(b"x" * 1000 + b"\n")


def test_threads_do_not_mix_their_lines(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:

        def work(start: int) -> None:
            for number in range(start, start + 200):
                journal.append(turn(number), turn(number + 10_000))

        threads = [threading.Thread(target=work, args=(start,)) for start in (0, 1000, 2000, 3000)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (segment,) = segments(tmp_path / "j")
    lines = segment.read_bytes().splitlines(keepends=True)
    assert len(lines) == 1600
    for first, second in zip(lines[::2], lines[1::2], strict=True):
        number = int(first.split(b'"turn_id":"turn_')[1][:8])
        assert first == line_of(turn(number))
        assert second == line_of(turn(number + 10_000))


def test_a_full_segment_is_followed_by_another(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", segment_bytes=500) as journal:
        for number in range(10):
            journal.append(turn(number))
    assert b"".join(path.read_bytes() for path in segments(tmp_path / "j")) == b"".join(
        line_of(turn(n)) for n in range(10)
    )
    assert len(segments(tmp_path / "j")) > 2


def test_a_segment_is_abandoned_only_when_its_writer_is_done(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    (segment,) = segments(tmp_path / "j")
    assert not is_abandoned(segment)
    journal.close()
    assert is_abandoned(segment)


def test_a_closed_journal_refuses(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.close()
    with pytest.raises(JournalError, match="closed"):
        journal.append(turn(1))


def _append_all(journal: Journal) -> None:
    for number in range(100):
        journal.append(turn(number, content="x" * 1000))


def test_a_full_disk_is_said_and_the_next_append_goes_on_when_there_is_room(
    tmp_path: Path, file_limit: Callable[[int | None], None]
) -> None:
    journal = Journal(tmp_path / "j")
    file_limit(10_000)
    with pytest.raises(JournalError, match="free some space"):
        _append_all(journal)
    (segment,) = segments(tmp_path / "j")
    assert segment.stat().st_size == 10_000
    whole = [line_of(turn(number, content="x" * 1000)) for number in range(100)]
    assert read_whole_lines(segment, 0, 1 << 20) == b"".join(whole[: 10_000 // len(whole[0])])
    file_limit(None)
    journal.append(turn(7))
    journal.close()
    assert segments(tmp_path / "j")[-1].read_bytes() == line_of(turn(7))


def _lines(folder: Path) -> bytes:
    return b"".join(read_whole_lines(path, 0, 1 << 30) for path in segments(folder))


def test_a_note_stands_in_the_file_when_it_returns(tmp_path: Path) -> None:
    async def work(journal: Journal) -> None:
        await journal.note(campaign(), turn(1))
        assert _lines(tmp_path / "j") == line_of(campaign()) + line_of(turn(1))

    with Journal(tmp_path / "j") as journal:
        asyncio.run(work(journal))


def test_notes_of_many_tasks_come_whole_and_in_the_order_of_the_calls(tmp_path: Path) -> None:
    async def work(journal: Journal) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(0, 3000, 2):
                group.create_task(journal.note(turn(number), turn(number + 1)))

    with Journal(tmp_path / "j") as journal:
        asyncio.run(work(journal))
    assert _lines(tmp_path / "j") == b"".join(line_of(turn(number)) for number in range(3000))


def test_append_writes_what_was_noted_before_it(tmp_path: Path) -> None:
    async def work(journal: Journal) -> None:
        noted = [asyncio.ensure_future(journal.note(turn(number))) for number in range(5)]
        await asyncio.sleep(0)
        journal.append(turn(5))
        assert _lines(tmp_path / "j") == b"".join(line_of(turn(number)) for number in range(6))
        await asyncio.gather(*noted)

    with Journal(tmp_path / "j") as journal:
        asyncio.run(work(journal))


def test_a_cancelled_note_is_written_all_the_same(tmp_path: Path) -> None:
    async def work(journal: Journal) -> None:
        noted = asyncio.ensure_future(journal.note(turn(1)))
        await asyncio.sleep(0)
        noted.cancel()
        await journal.note(turn(2))
        with pytest.raises(asyncio.CancelledError):
            await noted

    with Journal(tmp_path / "j") as journal:
        asyncio.run(work(journal))
    assert _lines(tmp_path / "j") == line_of(turn(1)) + line_of(turn(2))


def test_a_loop_that_ended_before_its_note_was_written_harms_nobody(tmp_path: Path) -> None:
    noted = []

    async def leave(journal: Journal) -> None:
        noted.append(asyncio.ensure_future(journal.note(turn(1))))
        await asyncio.sleep(0)

    async def work(journal: Journal) -> None:
        await journal.note(turn(2))

    with Journal(tmp_path / "j") as journal:
        with journal._lock:  # so that the writing thread comes too late
            asyncio.run(leave(journal))
        asyncio.run(work(journal))
    assert _lines(tmp_path / "j") == line_of(turn(1)) + line_of(turn(2))


def test_a_closed_journal_refuses_notes_and_none_waits_for_ever(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")

    async def work() -> None:
        noted = asyncio.ensure_future(journal.note(turn(1)))
        await asyncio.sleep(0)
        journal.close()
        await noted
        with pytest.raises(JournalError, match="closed"):
            await journal.note(turn(2))

    asyncio.run(work())
    assert _lines(tmp_path / "j") == line_of(turn(1))


def test_the_loop_goes_on_while_the_disk_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()

    def slow(fd: int, buffers: Sequence[bytes]) -> int:
        assert go_on.wait(10)
        return os.write(fd, b"".join(buffers))

    async def work(journal: Journal) -> None:
        noted = asyncio.ensure_future(journal.note(turn(1)))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not noted.done()
        go_on.set()
        await noted

    with Journal(tmp_path / "j") as journal:
        monkeypatch.setattr(os, "writev", slow)
        asyncio.run(work(journal))


def test_an_error_that_is_no_full_disk_fails_all_who_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async def work(journal: Journal) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(os, "writev", broken)
            noted = await asyncio.gather(*(journal.note(turn(n)) for n in range(3)), return_exceptions=True)
        assert [type(error) for error in noted] == [JournalError] * 3
        assert "Input/output error" in str(noted[0])
        await journal.note(turn(4))

    with Journal(tmp_path / "j") as journal:
        asyncio.run(work(journal))
    assert _lines(tmp_path / "j") == line_of(turn(4))


def test_the_names_of_segments_and_of_their_folder_are_put_on_disk_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut may lose a file whose content is safe."""
    monkeypatch.setattr(journal_module, "FSYNC_SECONDS", 60.0)
    synced: set[str] = set()

    monkeypatch.setattr(os, "fsync", lambda fd: synced.add(str(Path(f"/proc/self/fd/{fd}").readlink())))
    folder = tmp_path / "j"
    with Journal(folder, segment_bytes=1) as journal:
        assert synced == set()  # whoever opens it does not wait for the disk
        journal.sync()
        assert synced == {str(folder), str(tmp_path)}
        synced.clear()
        journal.append(turn(1))
        journal.sync()
        assert synced == set()
        journal.append(turn(2))  # in a segment of its own
        assert synced == set()
        journal.sync()
        assert str(folder) in synced


def test_a_folder_that_cannot_be_synced_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(_: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", cannot)
    with Journal(tmp_path / "j") as journal:
        journal.sync()
        journal.append(turn(1))
    assert _lines(tmp_path / "j") == line_of(turn(1))


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(journal_module, "FULL_DISK_PATIENCE_SECONDS", 0.1)


def _no_room(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


async def _until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  of threads that know no loop
            await asyncio.sleep(0.005)


@pytest.mark.usefixtures("quick_retries")
def test_a_full_disk_keeps_notes_waiting_until_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(journal: Journal) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(os, "writev", _no_room)
            noted = [asyncio.ensure_future(journal.note(turn(number))) for number in range(3)]
            await _until(lambda: journal.trouble)
            assert "is full: the campaign waits, and goes on by itself when there is room" in str(journal.trouble)
            noted.append(asyncio.ensure_future(journal.note(turn(3))))
            await asyncio.sleep(0.05)
            assert not any(note.done() for note in noted)
        await asyncio.gather(*noted)
        assert journal.trouble is None

    with Journal(tmp_path / "j") as journal:
        asyncio.run(work(journal))
    assert _lines(tmp_path / "j") == b"".join(line_of(turn(number)) for number in range(4))
    assert len(segments(tmp_path / "j")) == 1  # nothing was torn, so nothing was given up


@pytest.mark.usefixtures("quick_retries")
def test_a_torn_write_is_written_again_as_a_whole_in_a_segment_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For every place at which a disk can be full."""
    expected = b"".join(line_of(turn(number)) for number in range(4))

    async def work(journal: Journal, room: int) -> None:
        def little_room(fd: int, buffers: Sequence[bytes]) -> int:
            patch.undo()
            return os.write(fd, b"".join(buffers)[:room])

        with monkeypatch.context() as patch:
            patch.setattr(os, "writev", little_room)
            await asyncio.gather(journal.note(turn(0)), journal.note(turn(1), turn(2)), journal.note(turn(3)))

    for room in range(0, len(expected), 61):
        with Journal(tmp_path / str(room)) as journal:
            asyncio.run(work(journal, room))
        lines = _lines(tmp_path / str(room)).splitlines(keepends=True)
        assert sorted(set(lines)) == sorted(expected.splitlines(keepends=True))
        assert lines[-1] == line_of(turn(3))
        assert len(lines) <= 5  # of the second note the first line can stand twice


@pytest.mark.usefixtures("quick_retries")
def test_closing_on_a_full_disk_gives_up_in_time_and_counts_what_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "j")

    async def work() -> None:
        await journal.note(turn(0))
        monkeypatch.setattr(os, "writev", _no_room)
        noted = [asyncio.ensure_future(journal.note(turn(number), turn(number + 10))) for number in (1, 2)]
        await _until(lambda: journal.trouble)
        with pytest.raises(JournalError, match=r"^4 records of calls in flight could not be written .* is full"):
            journal.close()
        for error in await asyncio.gather(*noted, return_exceptions=True):
            assert isinstance(error, JournalError)

    asyncio.run(work())
    assert _lines(tmp_path / "j") == line_of(turn(0))


@pytest.mark.usefixtures("quick_retries")
def test_a_disk_that_is_found_full_by_fsync_is_waited_for_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "FSYNC_SECONDS", 0.01)

    async def work(journal: Journal) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", _no_room)
            await journal.note(turn(1))
            await _until(lambda: journal.trouble)
            noted = asyncio.ensure_future(journal.note(turn(2)))
            await asyncio.sleep(0.05)
            assert not noted.done()
        await noted
        await _until(lambda: journal.trouble is None)

    with Journal(tmp_path / "j") as journal:
        asyncio.run(work(journal))
    assert _lines(tmp_path / "j") == line_of(turn(1)) + line_of(turn(2))
