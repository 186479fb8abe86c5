"""The client against gateways as they run."""
