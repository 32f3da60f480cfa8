"""StreamV2V's feature bank written out token by token, from the paper: what ours must come to."""

import math

import torch


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))
    return dot / math.sqrt(sum(x * x for x in a.tolist()) * sum(y * y for y in b.tolist()))


def fused(features, bank, strength, threshold):
    """[N, C] and [M, C] to [N, C]: each token blended with its nearest, if that is near enough."""
    out = []
    for own in features:
        likeness = [cosine(own, token) for token in bank]
        best = max(range(len(bank)), key=likeness.__getitem__)
        nearest = bank[best] if likeness[best] >= threshold else own
        out.append((1 - strength) * own + strength * nearest)
    return torch.stack(out)


def merged(metric, tokens, permutation):
    """Both [2N, C], the bank's first: what is left of `tokens`, [N, C], where `metric` decides."""
    sources, targets = (half.tolist() for half in permutation.chunk(2))
    groups = {target: [tokens[target]] for target in targets}
    for source in sources:
        nearest = max(targets, key=lambda target: cosine(metric[source], metric[target]))
        groups[nearest].append(tokens[source])
    return torch.stack([torch.stack(groups[target]).mean(0) for target in targets])


class SequentialBank:
    """One self-attention of one conditioning at one step; shown frame after frame."""

    def __init__(self, config, permutation):
        """`permutation(frame, count)` draws the permutations of tokens."""
        self.config, self.permutation = config, permutation
        self.past = []  # of (keys, values, features): one if merged, else a queue
        self.frame = 0

    def attend(self, query, key, value):
        """[N, C] each, one head: the attention's output after fusion."""
        keys = torch.cat([key, *(past[0] for past in self.past)])
        values = torch.cat([value, *(past[1] for past in self.past)])
        own = ((query @ keys.T) * query.shape[1] ** -0.5).softmax(-1) @ values
        out = own
        if self.past and self.config.fuse:
            bank = torch.cat([past[2] for past in self.past])
            config = self.config
            out = fused(own, bank, config.fusion_strength, config.similarity_threshold)
        if self.frame % self.config.interval == 0:
            self._take_in((key, value, own))
        self.frame += 1
        return out

    def _take_in(self, new):
        if self.config.kind.value == "queue":
            self.past = [*self.past, new][-self.config.queue_frames :]
        elif not self.past:
            self.past = [new]
        else:
            permutation = self.permutation(self.frame, 2 * len(new[0]))
            both = [torch.cat(pair) for pair in zip(self.past[0], new, strict=True)]
            self.past = [tuple(merged(both[0], tokens, permutation) for tokens in both)]
