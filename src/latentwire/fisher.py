"""What the frozen reader's answers are sensitive to: the Fisher information of its input embeddings, `[D, D]`.

An error `e` in an embedding moves the distribution of the answer by `KL = e' F e / 2` to second order, so squared error
in this metric is `answer_kl` at the price of a few backward passes, once, instead of one at every step. Errors at
different positions are taken as independent.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from latentwire.corpus import Corpus
from latentwire.methods.compressors import moments
from latentwire.objectives import ExampleBatch, cross_entropy, drawn_labels
from latentwire.reader import IGNORE, Prefix, Reader

EXAMPLES = 128
RIDGE = 0.1


def fisher_metric(
    reader: Reader, corpus: Corpus, batch: int, progress: Callable[[float, str], None] = lambda done, remark: None
) -> Tensor:
    """Metric `[D, D]` float32 of the reader's answers, scaled so that the corpus' variance in it is 1.

    The mean over slot positions of `g g'`, where `g` is the gradient of the log-probability of answer tokens drawn from
    the reader's own distribution (the true Fisher information, not the "empirical" one: Kunstner et al. 2019, arXiv
    1905.12558, section 2). A tenth of its mean eigenvalue is added in all directions, for what 128 examples do not show.

    Args:
        reader: The frozen reader.
        corpus: Prompts; up to 128 of them are read, drawn evenly by the corpus' seed.
        batch: Prompts read at once.
        progress: Called with the share done and a remark.
    """
    draw = torch.Generator().manual_seed(corpus.seed)
    chosen = corpus.sample(EXAMPLES)
    total = torch.zeros(reader.width, reader.width, dtype=torch.float64)
    for start in range(0, len(chosen), batch):
        total += _outer_products(reader, corpus, chosen[start : start + batch], draw)
        progress(min(1.0, (start + batch) / len(chosen)), "")
    scale = total.diagonal().mean()
    metric = total / scale if scale > 0 else total
    metric += RIDGE * torch.eye(reader.width, dtype=torch.float64)
    _, covariance = moments(reader, corpus.counts)
    return (metric / (metric * covariance).sum()).float().to(reader.device)


@torch.enable_grad()
def _outer_products(reader: Reader, corpus: Corpus, chosen: list[int], draw: torch.Generator) -> Tensor:
    prompts = [corpus.prompts[index] for index in chosen]
    prefix = Prefix.stack([reader.embed(torch.tensor(prompt.slot.ids)) for prompt in prompts])
    embeds = prefix.embeds.detach().requires_grad_()
    inputs = reader.lay_in(prompts, Prefix(embeds, prefix.mask))
    batch = ExampleBatch(reader, prompts, inputs, inputs, reader.pad_labels([corpus.labels[i] for i in chosen]))
    hidden = reader.hidden_states(reader.append(inputs, batch.labels))  # each row's own gradient, nothing shared
    labels = drawn_labels(reader, hidden, batch.answer_labels, draw)
    surprise = cross_entropy(reader, hidden, labels) * int((labels != IGNORE).sum())
    (gradient,) = torch.autograd.grad(surprise, embeds)
    rows = gradient[prefix.mask].double().cpu()
    return rows.T @ rows
