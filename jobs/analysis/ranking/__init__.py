"""How good a log's ranking and the model's are: the metrics of trec_eval, with intervals over queries."""
