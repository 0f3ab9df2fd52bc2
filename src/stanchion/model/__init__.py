"""Model calls: the port (`client`), and one thin wire for each protocol that providers speak."""
