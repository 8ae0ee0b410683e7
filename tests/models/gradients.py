"""Which parameters cannot learn."""


def has_no_gradient_by_mathematics(name: str) -> bool:
    """A bias before a batch norm is subtracted again with the mean."""
    before_norms = "downsample.conv mlp.fc1 mlp.fc2".split()
    # RepConv ends in two norms, one after the other
    before_norms += "q_conv.bn2 k_conv.bn2 v_conv.bn2 proj.bn2".split()
    return name.endswith(tuple(f"{module}.bias" for module in before_norms))
