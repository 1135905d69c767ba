"""What an adapter is worth: rivals on the same held-out examples, their scores, the evidence, the verdict."""
