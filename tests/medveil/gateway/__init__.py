"""Tests of the gateway's flows."""
