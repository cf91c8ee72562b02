"""What things cost: dated token prices, in integer micro-USD."""
