"""One query of a retrieval log as it was explained: its documents in rank order, and which words answered which."""
