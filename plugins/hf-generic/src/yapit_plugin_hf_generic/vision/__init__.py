"""Networks of which there is a state dict only: it must be said whose tensors they are."""
