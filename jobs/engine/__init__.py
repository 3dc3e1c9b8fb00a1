"""From shards to parts: the driver, the run loop, the workers and what became of them."""
