"""Check the size limits: lines of the package, of each file and of each function. Exit code 1 if one is exceeded."""

import argparse
import ast
import sys
from pathlib import Path

PACKAGE_LINES, FILE_LINES, FUNCTION_LINES = 9371, 300, 40
"""The goal for the package is 9,000 lines. The limit is lowered with each cut."""
SETTINGS = "config"
"""The folder whose tables of settings may be longer."""


def function_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function from `def` to its end, without the docstring."""
    assert function.end_lineno
    lines = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is not None:
        docstring = function.body[0]
        assert docstring.end_lineno
        lines -= docstring.end_lineno - docstring.lineno + 1
    return lines


def problems(package: Path) -> tuple[int, list[str]]:
    """Lines of all Python files below `package`, and one text for each exceeded limit."""
    total, found = 0, []
    for path in sorted(package.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        lines = len(text.splitlines())
        total += lines
        is_settings = path.relative_to(package).parts[0] == SETTINGS
        if lines > FILE_LINES and not is_settings:
            found.append(f"{path}: {lines} lines, more than {FILE_LINES}")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not is_settings:
                length = function_lines(node)
                if length > FUNCTION_LINES:
                    found.append(f"{path}:{node.lineno}: {node.name} has {length} lines, more than {FUNCTION_LINES}")
    if total > PACKAGE_LINES:
        found.append(f"{package}: {total} lines, more than {PACKAGE_LINES}")
    return total, found


def main() -> int:
    """Check the folder that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", nargs="?", type=Path, default=Path(__file__).parents[1] / "mnist_accel")
    total, found = problems(parser.parse_args().package)
    print("\n".join([*found, f"{total} lines of at most {PACKAGE_LINES}"]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
