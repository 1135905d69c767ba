"""A verdict for people to read: HTML with plots."""
