"""StreamV2V's memory: self-attention that also sees a bank of past features."""
