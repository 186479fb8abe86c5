"""Suites: SM4-GCM against the published vector, and what is cut short."""

from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidTag

from privacy.suites import AES_256_GCM, SM4_GCM, SUITES, TAG_BYTES, Sm4Gcm, data_cipher
from wire.errors import Refused

NONCE = bytes.fromhex("00001234567800000000ABCD")
SAID = bytes.fromhex("FEEDFACEDEADBEEFFEEDFACEDEADBEEFABADDAD2")
PLAIN = bytes.fromhex("".join(2 * one * 4 for one in ("AA", "BB", "CC", "DD", "EE", "FF", "EE", "AA")))
SEALED = bytes.fromhex(
    "17F399F08C67D5EE19D0DC9969C4BB7D5FD46FD3756489069157B282BB200735"
    "D82710CA5C22F0CCFA7CBF93D496AC15A56834CBCF98C397B4024A2691233B8D"
    "83DE3541E4C2B58177E065A9BF7B62EC"
)


def test_sm4_gcm_is_that_of_rfc_8998() -> None:
    """Appendix A.1."""
    cipher = Sm4Gcm(bytes.fromhex("0123456789ABCDEFFEDCBA9876543210"))
    assert cipher.encrypt(NONCE, PLAIN, SAID) == SEALED
    assert cipher.decrypt(NONCE, SEALED, SAID) == PLAIN


@pytest.mark.parametrize("suite", list(SUITES))
def test_whatever_is_changed_or_cut_has_no_plaintext(suite: int) -> None:
    cipher = data_cipher(suite, b"k" * 32)
    sealed = cipher.encrypt(NONCE, PLAIN, SAID)
    assert len(sealed) == len(PLAIN) + TAG_BYTES and cipher.decrypt(NONCE, sealed, SAID) == PLAIN
    for length in range(len(sealed)):
        with pytest.raises(InvalidTag):
            cipher.decrypt(NONCE, sealed[:length], SAID)
    for place in range(len(sealed)):
        with pytest.raises(InvalidTag):
            cipher.decrypt(NONCE, sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :], SAID)
    for nonce, said in ((bytes(12), SAID), (NONCE, b""), (NONCE, None)):
        with pytest.raises(InvalidTag):
            cipher.decrypt(nonce, sealed, said)
    other = data_cipher(SM4_GCM if suite == AES_256_GCM else AES_256_GCM, b"k" * 32)
    with pytest.raises(InvalidTag):
        other.decrypt(NONCE, sealed, SAID)


def test_a_suite_that_nobody_knows_is_refused() -> None:
    with pytest.raises(Refused):
        data_cipher(3, b"k" * 32)
