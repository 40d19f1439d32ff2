set positional-arguments

# Show the recipes.
default:
    @just --list

# Run the tests. Arguments go to pytest: just test tests/reports -k notice
test *arguments:
    pytest "$@"

# Check style, types, imports and sizes.
lint:
    ruff check .
    ruff format --check .
    mypy
    lint-imports
    python scripts/check_size.py

# Write the generated parts of docs/, and the notebook from its source.
docs:
    cog -I scripts -r docs/options.md docs/api.md
    jupytext --to ipynb examples/first_run.py

# Measure how fast this machine trains.
bench *arguments:
    mnist-accel bench "$@"
