"""How models are measured: the metric, the protocol, the evaluator."""
