"""The command `kun-build`."""
