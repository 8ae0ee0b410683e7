"""Networks: configuration and presets, backbone, heads, published checkpoints."""
