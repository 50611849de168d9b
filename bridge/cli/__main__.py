"""``python -m bridge.cli``: the command without its script."""

from bridge.cli.app import main

main()
