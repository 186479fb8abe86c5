"""What a copy shows of persons: masks of columns, and how far somebody could still be found in it."""
