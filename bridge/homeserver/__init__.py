"""Homeservers: their sources, their release, and clusters of them on this machine."""

__all__: list[str] = []
