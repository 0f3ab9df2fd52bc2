"""One run, from its start to what people decide about it: accepted, admitted, started, followed, told, explained, reviewed, decided."""
