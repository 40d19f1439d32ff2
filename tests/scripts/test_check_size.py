from typing import TYPE_CHECKING

import pytest

from scripts import check_size

if TYPE_CHECKING:
    from pathlib import Path


def function(lines: int) -> str:
    return "def long():\n" + '    """One.\n\n    Two.\n    """\n' + "    x = 1\n" * (lines - 1)


@pytest.mark.parametrize(
    ("folder", "content", "expected"),
    [
        ("training", function(40), ""),
        ("training", function(41), "long has 41 lines"),
        ("config", function(41), ""),
        ("training", "x = 1\n" * 300, ""),
        ("training", "x = 1\n" * 301, "301 lines, more than 300"),
        ("config", "x = 1\n" * (check_size.PACKAGE_LINES + 1), f"lines, more than {check_size.PACKAGE_LINES}"),
    ],
)
def test_exceeded_limits_are_named(tmp_path: "Path", folder: str, content: str, expected: str) -> None:
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "module.py").write_text(content)
    _, found = check_size.problems(tmp_path)
    assert len(found) == bool(expected)
    assert expected in "".join(found)
