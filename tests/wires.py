"""The recipe of a tiny wire for two readers, which tests train in seconds."""

RECIPE = """
name: tiny-wire
data: {{train: [{{name: facts, questions_per_passage: 4}}], eval: {{name: facts}}, limit: 16, eval_limit: 6}}
reader: {{name: {first}, shots: 0, dtype: float32}}
further_readers: [{{name: {second}, shots: 0, dtype: float32}}]
method: {{name: wire, hidden: 16, task_tokens: 2}}
objective: {{weights: {{answer_ce: 1.0}}}}
train: {{steps: 8, batch_examples: 8, lr: 1.0e-3, tuned_lr: 1.0e-2, vocabulary_share: 0, precision: fp32}}
eval: {{scopes: [context], max_new_tokens: 4, resamples: 200, batch: 6}}
verdict: {{measure: share_of_gap}}
"""
