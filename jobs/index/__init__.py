"""An index: what each group of a document adds to the document's embedding, stored once for every later query."""
