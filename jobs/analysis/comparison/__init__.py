"""Two runs on the same pairs: where scores and attributions differ most, in numbers and examples."""
