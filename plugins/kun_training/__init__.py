"""From seed pairs to a label model and a primary chat model, ready to be used as a recipe's `model:`."""
