"""Training jobs: an exact model, whose references embed to zero, or one to compare it with."""
