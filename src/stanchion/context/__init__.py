"""The context: what a model is shown, assembled from state. Pure: the same state, the same bytes."""
