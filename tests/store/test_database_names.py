"""Names that no file can have are told in one line, and make nothing."""

from pathlib import Path

import pytest

from store.database import StoreError, query
from store.rows import lines_of
from store.writer import Writer


@pytest.mark.parametrize("name", ["a" * 300, "a\0b"])
def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="cannot be the name of a file"):
        Writer(tmp_path / name)
    with pytest.raises(StoreError, match="cannot be the name of a file"):
        query(tmp_path / name, "SELECT 1")
    assert list(tmp_path.iterdir()) == []


def test_a_seed_file_with_a_null_byte_in_its_name_is_refused() -> None:
    with pytest.raises(StoreError, match="cannot be the name of a file"):
        list(lines_of(Path("a\0b"), "seeds"))
