"""What agents say of what they were shown, as events of the journal.

Floor 7. Invariant: an event says one thing of one aggregate, and stays; it weighs on ranking from
its entry on, and on no state before.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

from cas.errors import CasError, Invalid
from cas.model.encoding import decode, encode
from cas.model.entry import Event
from cas.workspace.links import Link

FEEDBACK: Final = "recall.feedback"
Verdict = Literal["used", "helpful", "wrong"]
_WORTH: Final[dict[str, int]] = {"used": 1, "helpful": 2, "wrong": -2}


def feedback_event(link: Link, verdict: Verdict) -> Event:
    """The event that says so. Raises `Invalid`."""
    if verdict not in _WORTH:
        raise Invalid(f"Feedback is one of {', '.join(get_args(Verdict))}, not {verdict!r}.")
    return Event(FEEDBACK, encode([link.type, link.id, verdict]), {})


def decode_feedback(event: Event) -> tuple[str, str, int] | None:
    """(type, id, worth) of such an event; None for one that says nothing that we know."""
    try:
        said = decode(event.body or b"")
    except CasError:
        return None
    if type(said) is list and len(said) == 3 and said[2] in _WORTH:
        kind, id, verdict = said
        if type(kind) is str and type(id) is str:
            return kind, id, _WORTH[verdict]
    return None
