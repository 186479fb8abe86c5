"""The vault: an organisation's records and private documents, encrypted at home."""

from privacy.suites import AES_256_GCM, SM4_GCM
from privacy.vault.data_keys import DataKey
from privacy.vault.descriptions import DatasetInfo
from privacy.vault.register import Erasure, Register
from privacy.vault.vault import Vault

__all__ = ["AES_256_GCM", "SM4_GCM", "DataKey", "DatasetInfo", "Erasure", "Register", "Vault"]
