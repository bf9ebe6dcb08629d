"""Banks given to others: pulled, pushed and packed, with a model card."""
