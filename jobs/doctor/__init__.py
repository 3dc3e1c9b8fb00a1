"""What a model is, whether its attributions can be trusted, and what they cost: ``tokenpair doctor``."""
