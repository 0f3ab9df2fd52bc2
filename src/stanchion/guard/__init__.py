"""The guard: judges what a model proposes. Pure; a call without a verdict never runs, and doubt means no."""
