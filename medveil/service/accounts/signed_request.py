"""A request described plainly, and its signing by a program (RFC 9421, RFC 9530): the client's side of `signatures`.

No database and no web framework is imported here: a program needs this file, `wire` and http-message-signatures.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from types import SimpleNamespace

from wire.signing import Signer, VerifyKey, verify_raw

Clock = Callable[[], int]
Rand = Callable[[int], bytes]

TAG = "medveil"
ALGORITHM = "ed25519"
LONGEST_S = 300
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing (RFC 9110, 9.2.1) and need no signature."""

ALWAYS = ("@method", "authorization", "content-digest")
WITH_BODY = ("content-type",)
IF_PRESENT = ("content-encoding", "idempotency-key")  # each changes what the call means


@dataclass(frozen=True)
class PlainRequest:
    """A request as either side sees it. headers: every field line, in order; url: absolute, as it was meant.

    The server builds url from the origin it answers for, and the raw path and query as they arrived.
    """

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = field(default=b"", repr=False)

    def values(self, name: str) -> list[str]:
        """Every value of a field, whatever its case."""
        return [value for header, value in self.headers if header.lower() == name]


def sign_request(
    request: PlainRequest, signer: Signer, *, clock: Clock, rand: Rand, lifetime: int = 60
) -> dict[str, str]:
    """Program: the fields to add to its request, Content-Digest, Signature-Input and Signature.

    The request has its Authorization already, and a Content-Type if it has a body; url is what will be sent, to the
    letter. lifetime: 1..300 s. Signed anew for each try: a nonce works once. Raises ValueError for a request that
    lacks a field, or has one twice.
    """
    from http_message_signatures import HTTPMessageSignaturesException, HTTPMessageSigner

    if not 1 <= lifetime <= LONGEST_S:
        raise ValueError(f"a signature lives for 1 to {LONGEST_S} s")
    fields = [*ALWAYS[1:2], *(WITH_BODY if request.body or request.values("content-type") else ())]
    fields += [name for name in IF_PRESENT if request.values(name)]
    wrong = [name for name in fields if len(request.values(name)) != 1]
    if wrong or request.values("content-digest"):
        raise ValueError(f"a request to be signed has {', '.join(wrong)} once, and no Content-Digest yet")
    headers = {name: value for name, value in request.headers if name.lower() in fields}
    message = SimpleNamespace(method=request.method, url=request.url, headers=headers)
    now = clock() // 1000
    handler = HTTPMessageSigner(signature_algorithm=algorithm())
    try:
        prepared = handler.prepare(
            message,
            key_id=signer.key.key_id().hex(),
            created=datetime.fromtimestamp(now, UTC),
            expires=datetime.fromtimestamp(now + lifetime, UTC),
            nonce=base64.urlsafe_b64encode(rand(18)).decode(),
            label=TAG,
            tag=TAG,
            covered_component_ids=("@method", "@target-uri", *fields),
            body=request.body,
        )
        handler.apply(message, prepared, signer.sign_raw(prepared.signature_base))
    except HTTPMessageSignaturesException:
        raise ValueError("the request's method, url or a field cannot be signed") from None
    return {name: headers[name] for name in ("Content-Digest", "Signature-Input", "Signature")}


def needs_signature(method: str) -> bool:
    """Whether a program must sign a call with this method."""
    return method not in SAFE_METHODS


@cache
def algorithm() -> type:
    """ed25519 by the one verifier of this house."""
    from http_message_signatures import HTTPSignatureAlgorithm

    class Ed25519(HTTPSignatureAlgorithm):
        algorithm_id = ALGORITHM

        def __init__(self, public_key: VerifyKey) -> None:
            self._key = public_key

        def verify(self, signature: bytes, message: bytes) -> None:
            verify_raw(self._key, message, signature)

    return Ed25519
