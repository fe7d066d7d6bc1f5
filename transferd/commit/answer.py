"""What a command is answered with."""

from typing import NamedTuple


class Answer(NamedTuple):
    """A status and a body, both made by the edge; the layers below store them and never read them.

    `kept`: the outcome is stored for the key, or would be if the command had one. `replayed`: it
    was decided for an earlier request.
    """

    status: int
    body: bytes
    kept: bool = True
    replayed: bool = False
