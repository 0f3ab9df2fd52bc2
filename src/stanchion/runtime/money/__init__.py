"""What runs cost, will cost and would have cost; and who is told when it is too much."""
