"""An organisation's own secret keys, generation after generation.

The first is drawn with the organisation; each rotation draws another. All are kept in the vault: blocks that were
cosigned, grants that were signed and messages that were sealed under an earlier key still have to be shown for what
they are. Which key signs now is said by the ledger (`LedgerAccount.trust`), not here.
"""

from __future__ import annotations

from collections.abc import Callable

from privacy.vault import Vault
from wire.canonical import Wire, decode, encode
from wire.errors import Refused, VerificationError
from wire.keyset import KeySet, SealingKey, SignatureKey
from wire.sealing import OpenKey, Sealed, open
from wire.signing import Keyring, Signer, VerifyKey

_KIND = "secrets"
_FIRST = "keys"


class Secrets(Wire, frozen=True, tag="medveil.secrets"):
    """One generation: 32 secret bytes each. salt: derives the salts of commitments; the same in every generation."""

    envelope: bytes
    cosign: bytes
    http: bytes
    tls: bytes
    seal: bytes
    salt: bytes

    def __repr__(self) -> str:
        return "Secrets()"


class Generation:
    """The keys of one generation, ready to use."""

    def __init__(self, secrets: Secrets) -> None:
        self.envelope = Signer(secrets.envelope)
        self.cosign = Signer(secrets.cosign)
        self.http = Signer(secrets.http)
        self.tls = Signer(secrets.tls)
        self.seal = OpenKey(1, secrets.seal)
        self.tls_seed = secrets.tls

    @property
    def signers(self) -> tuple[Signer, Signer, Signer, Signer]:
        """Of the envelope, cosign, http and tls keys, in this order."""
        return self.envelope, self.cosign, self.http, self.tls

    def key_set(self) -> KeySet:
        """The public keys, valid from 0: the ledger sets the height."""
        envelope, cosign, http, tls = (SignatureKey(signer.key, 0) for signer in self.signers)
        return KeySet(envelope, cosign, http, tls, SealingKey(self.seal.key, 0))


class OwnKeys:
    """Every generation of an organisation's keys, the newest last. Make it with `create` or `open`."""

    def __init__(self, vault: Vault, rand: Callable[[int], bytes], secrets: list[Secrets]) -> None:
        self._vault = vault
        self._rand = rand
        self._generations = [Generation(one) for one in secrets]
        self.salt = secrets[0].salt
        self.envelopes = Keyring(*(one.envelope for one in self._generations))
        self.cosigners = Keyring(*(one.cosign for one in self._generations))

    @classmethod
    def create(cls, vault: Vault, rand: Callable[[int], bytes]) -> OwnKeys:
        """The first generation, drawn and kept."""
        secrets = Secrets(*(rand(32) for _ in Secrets.__struct_fields__))
        vault.put_document(_KIND, _FIRST, encode(secrets))
        return cls(vault, rand, [secrets])

    @classmethod
    def open(cls, vault: Vault, rand: Callable[[int], bytes]) -> OwnKeys:
        """All that are kept. Raises what the vault raises."""
        names = [_FIRST]
        kept = vault.documents(_KIND)
        while (name := _name(len(names))) in kept:
            names.append(name)
        return cls(vault, rand, [decode(Secrets, vault.document(_KIND, name)) for name in names])

    @property
    def generations(self) -> tuple[Generation, ...]:
        """All of them, in the order they were drawn."""
        return tuple(self._generations)

    @property
    def first(self) -> Generation:
        """What the organisation's member card shows."""
        return self._generations[0]

    @property
    def newest(self) -> Generation:
        """The one drawn last; it may not be valid yet."""
        return self._generations[-1]

    def of(self, envelope: VerifyKey) -> Generation:
        """The generation with that envelope key. Raises Refused where the key is not here."""
        for generation in reversed(self._generations):
            if generation.envelope.key == envelope:
                return generation
        raise Refused("organisation.no_key", key=envelope.key_id().hex())

    def tls_seed(self, key: VerifyKey) -> bytes:
        """The secret of that tls key. Raises Refused."""
        for generation in reversed(self._generations):
            if generation.tls.key == key:
                return generation.tls_seed
        raise Refused("organisation.no_key", key=key.key_id().hex())

    def draw(self) -> Generation:
        """A new generation, kept before it is returned; it signs nothing until the ledger names it."""
        fresh = {name: self._rand(32) for name in Secrets.__struct_fields__ if name != "salt"}
        secrets = Secrets(**fresh, salt=self.salt)
        self._vault.put_document(_KIND, _name(len(self._generations)), encode(secrets))
        generation = Generation(secrets)
        self._generations.append(generation)
        self.envelopes.add(generation.envelope)
        self.cosigners.add(generation.cosign)
        return generation

    def unseal(self, info: bytes, sealed: Sealed) -> bytes:
        """The plaintext of what was sealed to any generation, the newest first. Raises as `wire.sealing.open`."""
        for generation in reversed(self._generations):
            try:
                return open(generation.seal, info, sealed)
            except VerificationError as error:
                found = error
        raise found

    def __repr__(self) -> str:
        return f"OwnKeys({len(self._generations)})"


def _name(number: int) -> str:
    return f"{_FIRST}-{number + 1}"
