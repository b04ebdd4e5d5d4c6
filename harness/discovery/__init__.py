"""How plugins are found."""
