"""What an operator asks of a whole store: who works, what stands and why, whether it is intact, how it moves elsewhere."""
