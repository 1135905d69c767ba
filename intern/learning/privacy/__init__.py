"""Personal data, found and replaced by placeholders before anything is stored for training."""
