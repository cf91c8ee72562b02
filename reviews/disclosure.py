"""What may be shown and stored of addresses and answers: no password, no key."""

from __future__ import annotations

import re

_USER = re.compile(r"(?<=//)[^/?#]*@")
_SHORTEST_SECRET = 6
"""A shorter key is no secret, and blotting it out would maim the text."""


def public_url(url: str) -> str:
    """An address without user name, password and query, whether it is a valid one or not."""
    return re.split(r"[?#]", _USER.sub("", url))[0]


def host_of(url: str) -> str:
    """Host and port of an address, in lower case; empty where it has none."""
    return public_url(url).partition("//")[2].partition("/")[0].lower()


def without_key(data: bytes, api_key: str | None) -> bytes:
    """The data with the key blotted out, for a server may repeat what it was sent."""
    if not api_key or len(api_key) < _SHORTEST_SECRET:
        return data
    return data.replace(api_key.encode(), b"[key]")


def storable(data: bytes) -> str:
    """The data as text that any database takes."""
    return data.decode("utf-8", "replace").replace("\0", "\ufffd")
