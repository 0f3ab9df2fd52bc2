"""The loop: given a state and a moment, what to do next. Pure; the edge does it and journals what happened."""
