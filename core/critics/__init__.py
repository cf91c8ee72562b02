"""Critics: how good an instruction or a pair is, by log-probabilities, and whether to believe it."""
