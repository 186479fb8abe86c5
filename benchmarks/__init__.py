"""Side-by-side runs against peers and against the plain computation."""
