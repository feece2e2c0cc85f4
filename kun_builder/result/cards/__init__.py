"""Dataset cards: the facts of a release and the templates of `dataset_cards/` become a README.md."""
