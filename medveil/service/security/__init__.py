"""The security log: who did, or was refused, what at this service, written before the answer."""
