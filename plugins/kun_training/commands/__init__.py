"""The commands `kun-build train`, `evaluate`, `calibrate` and `align`."""
