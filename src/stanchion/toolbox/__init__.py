"""Tools: typed Python functions (`function`), the set an agent has (`registry`), and the values that pass (`answer`)."""
