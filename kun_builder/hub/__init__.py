"""Moving a finished run to the Hub, reading it back, and building it again."""
