"""What one asks of features before training anything: what they are worth, what is alike, where else this is."""
