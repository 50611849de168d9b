"""The command ``khepri-bridge``."""

from bridge.cli.app import main

__all__ = ["main"]
