"""From YAML to a frozen Recipe, checked against the plugins that are found."""
