"""What a recipient of extracts does: keep the keys they are sealed to, open them, write what they hold."""
