"""What is computed from runs: statistics, faithfulness, comparison, and a query with its documents."""
