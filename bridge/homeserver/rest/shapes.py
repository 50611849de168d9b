"""What requests and answers hold, as JSON. Members that nobody here knows are left alone (R0-13).

Names are those of ``bridge.jose.credentials.names``. Epochs are decimal texts: they have 64 bits, and many a
JSON number has 53.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, StringConstraints, WithJsonSchema

from bridge.jose.credentials import MAX_NAME_BYTES, NAME_PATTERN, name_fault
from bridge.registry import EntityRecord, Rule


def _name(text: str) -> str:
    fault = name_fault(text)
    if fault is not None:
        raise ValueError(f"the name {fault}")
    return text


def _number(value: object) -> object:
    if isinstance(value, str | bool):
        raise ValueError("a number is no text and no boolean")
    return value


def _epoch(text: str) -> str:
    if int(text) >= 2**64:
        raise ValueError("an epoch is below 2^64")
    return text


Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_NAME_BYTES, pattern=f"^{NAME_PATTERN}"),
    AfterValidator(_name),
    # The engine that validates knows no look-ahead; readers of the description do.
    WithJsonSchema(
        {
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_NAME_BYTES,
            "pattern": rf"^(?!\.\.?$){NAME_PATTERN}",
        }
    ),
]
"""of a player, a server, an entity or a scene"""
Number = Annotated[int, BeforeValidator(_number)]
"""a whole number: JSON may write it 4000.0, but not as a text"""
Epoch = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9]{1,20}$"),
    AfterValidator(_epoch),
    Field(examples=["281474976710657"]),
]
"""decimal, 0 … 2^64 − 1"""


class Awaiting(BaseModel):
    """The release that a new authority still waits for."""

    server: str = Field(description="Whose release is due.", examples=["sim2"])
    epoch: Epoch = Field(description="The epoch that is to be released.")


class Entity(BaseModel):
    """Who owns, who masters and who simulates one entity."""

    entity: str = Field(examples=["ball"])
    owner: str = Field(description="The player who controls it.", examples=["Player1"])
    master: str = Field(description="The player who makes its rule.", examples=["Player1"])
    default_owner: str | None = Field(
        description="To whom ownership falls; null: to the master.", examples=["Player1"]
    )
    rule: Rule = Field(description="What happens when another player requests it.")
    server: str | None = Field(
        description="The server that simulates it; null: it is dormant.", examples=["sim1"]
    )
    epoch: Epoch = Field(description="Rises with every grant of authority.")
    awaiting: Awaiting | None = Field(description="A release that is due before that server acts.")
    home: str = Field(
        description="The instance that it was created in, which knows where it is.", examples=["local"]
    )
    away: str | None = Field(
        description="The other instance that has it, or is asked to take it; null: it is here."
    )
    version: int = Field(description="Rises with every change.", ge=0, examples=[7])

    @classmethod
    def of(cls, record: EntityRecord) -> Self:
        """The entity that a record tells of."""
        awaiting = record.awaiting
        return cls(
            entity=record.entity,
            owner=record.owner,
            master=record.master,
            default_owner=record.default_owner,
            rule=record.rule,
            server=record.server,
            epoch=str(record.epoch),
            awaiting=None
            if awaiting is None
            else Awaiting(server=awaiting.server, epoch=str(awaiting.epoch)),
            home=record.home,
            away=None if record.away is None else record.away.instance,
            version=record.version,
        )
