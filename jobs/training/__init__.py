"""Training jobs: an exact model, or one to compare it with, fine-tuned on labelled pairs."""
