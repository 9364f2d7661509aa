"""``python -m dynserve``: the command line."""

from dynserve.cli.main import main

main()
