"""Evaluation on held-out data: texts in bits, tasks in right answers, memories beside a model."""
