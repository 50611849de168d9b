"""What a homeserver is to people and to other instances: REST, federation, the signer of its credentials."""

__all__: list[str] = []
