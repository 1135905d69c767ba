"""`python -m intern.cli` is the command `intern`."""

from intern.cli import main

main()
