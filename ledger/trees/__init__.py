"""Two trees: the log proves history, the state tree proves the latest value of a key, or that there is none."""
