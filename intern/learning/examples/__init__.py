"""Examples gathered from every source, cleaned and split into a frozen dataset, and rendered for training."""
