"""What an index alone says about its corpus: duplicates, boilerplate, positions, hubs."""
