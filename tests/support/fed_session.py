"""Streams together with the models that they are fed with: for tests that have one model only."""

import torch


class FedSession:
    """A StreamSession whose calls get `model`, and batches in place of single frames.

    Attributes:
        session: the stream.
        model: what its calls get; may be replaced between them, by a plain function, too.
    """

    def __init__(self, session, model):
        self.session, self._model = session, _Plain()
        self.model = model
        self.session.open(self.model)

    @property
    def model(self):
        return self._model

    @model.setter
    def model(self, model):
        self._model = model if hasattr(model, "timelines") else _Replaced(model, self._model)

    def __getattr__(self, name):
        return getattr(self.session, name)

    def load_state_dict(self, *state):
        """Load a state, and open the stream again, as every run does."""
        self.session.load_state_dict(*state)
        self.session.open(self.model)

    @property
    def can_repeat(self):
        return self.session.can_repeat(self.model)

    def push(self, latent, depth=None):
        return self.session.push(self.model, latent, depth)

    def repeat(self):
        return self.session.repeat(self.model)

    def drain(self):
        return self.session.drain(self.model)

    def push_all(self, latents, depth=None):
        """Push [F, C, h, w] and stack what is finished."""
        hints = [None] * len(latents) if depth is None else depth
        pairs = zip(latents, hints, strict=True)
        return _stack([x0 for pair in pairs for x0 in self.push(*pair)], latents.shape[1:])

    def flush(self):
        """Drain and stack."""
        return _stack(list(self.drain()), self.session._shape or (0, 0, 0))


class FedTranslator:
    """A FrameTranslator whose calls get `opened`, and return pictures that have arrived."""

    def __init__(self, translator, opened):
        self.translator, self.opened = translator, opened
        translator.open(opened)

    def __getattr__(self, name):
        return getattr(self.translator, name)

    def load_state_dict(self, *state):
        self.translator.load_state_dict(*state)
        self.translator.open(self.opened)

    def push(self, picture):
        return [copy.get() for copy in self.translator.push(self.opened, picture)]

    def drain(self):
        return (copy.get() for copy in self.translator.drain(self.opened))


class _Plain:
    """No prompts, and depth latents for features."""

    timelines = ()
    open_memory = staticmethod(lambda memory: None)
    encode_depth = staticmethod(lambda depth: depth)


class _Replaced:
    """A function in place of a model's call; the rest is the model's."""

    def __init__(self, call, model):
        self._call, self._behind = call, model

    def __call__(self, x, plan):
        return self._call(x, plan)

    def __getattr__(self, name):
        found = self._call if hasattr(self._call, name) else self._behind
        return getattr(found, name)


def _stack(frames, shape):
    return torch.stack(frames) if frames else torch.empty(0, *shape)
