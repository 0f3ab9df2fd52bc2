"""One run, from its start to what people decide about it: admitted, started, followed, explained, reviewed, decided."""
