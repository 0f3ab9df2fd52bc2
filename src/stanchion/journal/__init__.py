"""The journal: events as they are stored (`record`), the store's port (`store`), and the embedded store (`sqlite`)."""
