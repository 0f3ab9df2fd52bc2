"""The vocabulary. Pure: nothing here reads a clock, makes an id, draws a random number or does I/O."""
