"""The journal: whole lines, in order, whatever happens to the process that writes them."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from store.journal import Journal, JournalError, is_abandoned, line_of, read_whole_lines, segments
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
