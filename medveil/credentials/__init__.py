"""Credentials and proofs on files: what `medveil zkp` does, for issuers, holders and verifiers without a gateway.

`files` says what travels, `folder` keeps what is secret under a passphrase, `issuing` makes and signs credentials,
`proving` asks, proves and verifies. The mathematics is `zkp`'s.
"""
