"""One explained query of a retrieval log: its documents in rank order, and which words met which."""
