"""Credentials and proofs on files: what `medveil zkp` does, for issuers, holders and verifiers without a gateway.

`files` says what travels, `folder` keeps an issuer's secrets under a passphrase and `wallets` a holder's. `issuing`
makes and signs credentials, `sets` publishes who is active. `proving` asks for eligibility and verifies any proof;
`claiming` asks for and proves payments under rows of a `policy_table`. `contract` is the public state, played on one
file; `updating` has an account go on, `opening` tells a payer the amount. The mathematics is `zkp`'s.
"""
