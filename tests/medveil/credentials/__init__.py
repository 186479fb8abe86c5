"""medveil/credentials: issuers, a holder, payers and the contract on files."""
