"""Pure functions on tensors: surrogate gradients, neurons over time, spike-driven attention."""
