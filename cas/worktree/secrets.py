"""Which files probably hold secrets: a short list of names, and what private keys begin with.

Floor 5. Invariant: a match only ever leads to a notice or, when asked for, to leaving a file
out; nothing is decided silently. The list holds what tools write by convention and what is
dangerous in every case; it names no file that is usually harmless (`*.pub`, `.env.example`).
"""

from __future__ import annotations

import re
from typing import Final

_NAME: Final = re.compile(
    rb"\.env(?:\.(?!example$|sample$|template$|dist$|defaults$).+)?"  # settings of web frameworks
    rb"|id_(?:rsa|dsa|ecdsa|ed25519)(?:_sk)?"  # OpenSSH
    rb"|\.netrc|_netrc|\.pgpass|\.pypirc|\.git-credentials|\.htpasswd"
    rb"|credentials\.json|service[-_]account.*\.json"  # cloud services
    rb"|.+\.(?:p12|pfx|jks|keystore|kdbx|ppk|agekey)",  # key stores
    re.IGNORECASE,
)
_KEY: Final = re.compile(
    rb"-----BEGIN (?:[A-Z0-9]+ ){0,2}PRIVATE KEY(?: BLOCK)?-----"
    rb"|PuTTY-User-Key-File-[23]:"
    rb"|AGE-SECRET-KEY-1"
)
_KEY_STARTS: Final = (b"-----BEGIN ", b"PuTTY-", b"AGE-")

KEY_BYTES: Final = 128
"""A private key shows itself in so many first bytes."""


def is_secret_name(name: bytes) -> bool:
    """Whether a file of this name probably holds a secret."""
    return _NAME.fullmatch(name) is not None


def is_private_key(content: bytes) -> bool:
    """Whether content begins like a private key."""
    head = content[:KEY_BYTES].lstrip()
    return head.startswith(_KEY_STARTS) and _KEY.match(head) is not None
