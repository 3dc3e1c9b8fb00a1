"""Why one document is above another for a query: the difference of their scores by words and by word pairs."""
