"""Erlang nodes that this machine builds, starts, watches and ends: a cluster, or one child's own store."""

__all__: list[str] = []
