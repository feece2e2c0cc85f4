"""`generate` and all that is behind it: journal, pool, window, endpoints."""
