"""How good a label model and a scorer are, measured on held-out pairs."""
