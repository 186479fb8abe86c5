"""The one registry of domain separators for our own signed and hashed bytes.

A domain is framed before the message it separates: one length byte, the domain, the message.
C2SP notes, RFC 9421 and TLS bring their own separation and are not listed.
"""

from __future__ import annotations

import hashlib
import hmac

Domain = bytes

# signatures
ENVELOPE = b"medveil/v1/envelope"
MANIFEST = b"medveil/v1/manifest"
GRANT = b"medveil/v1/grant"
CONSENT_RECEIPT = b"medveil/v1/consent-receipt"
BILL = b"medveil/v1/bill"
MASK_KEY = b"medveil/v1/mask-key"
MASKED = b"medveil/v1/masked"
DEALT_SHARE = b"medveil/v1/dealt-share"
UNMASKING = b"medveil/v1/unmasking"
MESSAGE = b"medveil/v1/message"
MODEL_REVIEW = b"medveil/v1/model-review"
RECEIPT = b"medveil/v1/receipt"
PRESENTATION = b"medveil/v1/presentation"
KEY_POSSESSION = b"medveil/v1/key-possession"
BACKUP = b"medveil/v1/backup"
ERASURE_RECEIPT = b"medveil/v1/erasure-receipt"
DELETE_NOTICE = b"medveil/v1/delete-notice"
DELETION = b"medveil/v1/deletion"
EXTRACT = b"medveil/v1/extract"

# hashes
GENESIS = b"medveil/v1/genesis"
ENVELOPE_ID = b"medveil/v1/envelope-id"
KEY_ID = b"medveil/v1/key-id"
SCHEMA = b"medveil/v1/schema"
COMMITMENT = b"medveil/v1/commitment"
QUERY = b"medveil/v1/query"
CONTRIBUTION = b"medveil/v1/contribution"
SUM_SESSION = b"medveil/v1/sum-session"
SUM_LAYOUT = b"medveil/v1/sum-layout"
MASK_KEYS = b"medveil/v1/mask-keys"
MASK_SHARE = b"medveil/v1/mask-share"
SUM_PARTIES = b"medveil/v1/sum-parties"
SUM_SURVIVORS = b"medveil/v1/sum-survivors"
MASKED_CELLS = b"medveil/v1/masked-cells"
ACCESS_ENTRY = b"medveil/v1/access-entry"
ERASURE_INTENT = b"medveil/v1/erasure-intent"
MODEL = b"medveil/v1/model"
APPLICATION = b"medveil/v1/application"
JOB_RECORD = b"medveil/v1/job-record"
NOISED_CELLS = b"medveil/v1/noised-cells"
CREDENTIAL_SCHEMA = b"medveil/v1/credential-schema"
ATTRIBUTE_NAME = b"medveil/v1/attribute-name"
SET_ROW = b"medveil/v1/set-row"
NULLIFIER = b"medveil/v1/nullifier"
PAILLIER_KEY = b"medveil/v1/paillier-key"
TRANSCRIPT = b"medveil/v1/transcript"
VECTOR_GENERATOR = b"medveil/v1/vector-generator"
PEDERSEN_GENERATOR = b"medveil/v1/pedersen-generator"
RANGE_GENERATOR = b"medveil/v1/range-generator"
BATCH = b"medveil/v1/batch"
SECURITY_LOG = b"medveil/v1/security-log"
SERVICE_SECRET = b"medveil/v1/service-secret"
EXTRACT_PLACE = b"medveil/v1/extract-place"
EXTRACT_KEY = b"medveil/v1/extract-key"
PARQUET_PIECES = b"medveil/v1/parquet-pieces"
RISK_REPORT = b"medveil/v1/risk-report"
SNAPSHOT_PLACE = b"medveil/v1/snapshot-place"
ROW_PLACE = b"medveil/v1/row-place"

# claims
POLICY_ROW = b"medveil/v1/policy-row"
VOUCHER = b"medveil/v1/voucher"
CLAIM = b"medveil/v1/claim"
REDEMPTION = b"medveil/v1/redemption"
CREDENTIAL_VALUES = b"medveil/v1/credential-values"
CLAIM_OP = b"medveil/v1/claim-op"
WALLET = b"medveil/v1/kdf/wallet"
WALLET_FILE = b"medveil/v1/wallet-file"

# state tree (issue of its own tags: a bucket never passes for an inner hash or a leaf)
STATE_LEAF = b"medveil/v1/state-leaf"
STATE_BUCKET = b"medveil/v1/state-bucket"
STATE_INNER = b"medveil/v1/state-inner"

# key derivation
SALT = b"medveil/v1/kdf/salt"
DATA_KEY = b"medveil/v1/kdf/data-key"
VAULT_INDEX = b"medveil/v1/kdf/vault-index"
VAULT_PERSON = b"medveil/v1/kdf/vault-person"
VAULT_RECORD = b"medveil/v1/kdf/vault-record"
ERASURES = b"medveil/v1/kdf/erasures"
SAFEGUARDS = b"medveil/v1/kdf/safeguards"
EPOCH_KEY = b"medveil/v1/kdf/epoch-key"
DATE_SHIFT = b"medveil/v1/kdf/date-shift"
PSEUDONYM = b"medveil/v1/kdf/pseudonym"
PAIR_MASK = b"medveil/v1/kdf/pair-mask"
SHARE_SEAL = b"medveil/v1/kdf/share-seal"
SERVICE_KEY = b"medveil/v1/kdf/service-key"
JOB_RAND = b"medveil/v1/kdf/job-rand"
ISSUER_KEY = b"medveil/v1/kdf/issuer-key"
ISSUER_SHARE = b"medveil/v1/kdf/issuer-share"
CREDENTIAL_FOLDER = b"medveil/v1/kdf/credential-folder"
EXTRACT_FOLDER = b"medveil/v1/kdf/extract-folder"
EXTRACT_MASK = b"medveil/v1/kdf/extract-mask"
EXTRACT_OPENING = b"medveil/v1/kdf/extract-opening"

# sealing (HPKE info)
SEAL_MESSAGE = b"medveil/v1/seal/message"
SEAL_EXTRACT = b"medveil/v1/seal/extract"


def registered() -> dict[str, bytes]:
    """Every domain by name."""
    return {name: value for name, value in globals().items() if name.isupper() and isinstance(value, bytes)}


def framed(domain: Domain, message: bytes) -> bytes:
    """`message` under `domain`: unambiguous, since the domain's length comes first."""
    return bytes([len(domain)]) + domain + message


def digest(domain: Domain, *parts: bytes) -> bytes:
    """SHA-256 over the domain and length-framed parts: 32 bytes, injective in (domain, parts)."""
    framed_parts = [bytes([len(domain)]), domain]
    for part in parts:
        framed_parts += (len(part).to_bytes(8, "big"), part)
    return hashlib.sha256(b"".join(framed_parts)).digest()  # one call: most parts are a few dozen bytes


def keyed(key: bytes, domain: Domain, *parts: bytes) -> bytes:
    """HMAC-SHA-256 under a secret key of at least 16 bytes: a PRF, 32 bytes (RFC 2104)."""
    if len(key) < 16:
        raise ValueError("the key of a keyed hash must have at least 16 bytes")
    framed_parts = [bytes([len(domain)]), domain]
    for part in parts:
        framed_parts += (len(part).to_bytes(8, "big"), part)
    return hmac.digest(key, b"".join(framed_parts), "sha256")
