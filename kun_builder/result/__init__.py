"""A finished run as one value, and what is drawn from it: card, page, pictures, figures."""
