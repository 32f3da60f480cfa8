"""Tokens that show that a request comes from the live page, or may watch one stream.

They are signed rather than stored, so that any number of them takes no memory.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

# Known to this process only: tokens end with the server.
_SECRET = secrets.token_bytes(32)


def page_token() -> str:
    """Make a token for a page that is being opened."""
    nonce = secrets.token_hex(8)
    return f"{nonce}.{_signed('page', nonce)}"


def is_page_token(token: object) -> bool:
    """Return whether `page_token` made it."""
    if not isinstance(token, str) or not token.isascii() or len(token) > 200:
        return False
    nonce, _, signature = token.partition(".")
    return hmac.compare_digest(signature, _signed("page", nonce))


def watch_token(stream: str) -> str:
    """Make the read-only token of a stream."""
    return _signed("watch", stream)


def is_watch_token(token: str, stream: str) -> bool:
    """Return whether it is the stream's read-only token."""
    return token.isascii() and hmac.compare_digest(token, watch_token(stream))


def _signed(purpose: str, text: str) -> str:
    message = f"{purpose}\0{text}".encode()
    return hmac.new(_SECRET, message, hashlib.sha256).hexdigest()[:32]
