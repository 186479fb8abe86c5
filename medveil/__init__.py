"""What people touch: CLI, verification, the demo. The only public import surface."""
