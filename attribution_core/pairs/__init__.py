"""From contributions of texts to attributions of pairs: what cells sum to, and many pairs at once as columns."""
