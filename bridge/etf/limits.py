"""What one encoded term may ask of its reader."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from bridge.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class TermLimits:
    """Ceilings for one term; going over one raises ``LimitExceededError`` with its name."""

    max_depth: int = 131_072
    """levels; neither direction recurses, so this bounds memory (about 200 bytes a level), not the stack"""
    max_elements: int = 16_777_216
    """elements of all tuples, lists, strings and maps (a pair counts twice); 8 bytes each, 64 where
    each is an empty list, so at most about 1 GiB"""
    max_bytes: int = 134_217_728
    """bytes of the encoded term; RabbitMQ's largest message"""
    max_inflated_bytes: int = 134_217_728
    """bytes of a compressed term once inflated; the size it claims is checked before anything is inflated"""
    max_atoms: int = 100_000
    """atoms not seen before, in one term; a BEAM itself dies at about a million"""

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 1:
                raise ConfigurationError(f"{field.name} must be at least 1")


DEFAULT_LIMITS: Final = TermLimits()
