"""What every task asks of the outputs of a network."""


def require_finite(finite: bool) -> None:
    """Refuse outputs that hold NaN or infinity, of which nothing can be said.

    Raises:
        ValueError: they are not finite.
    """
    if not finite:
        raise ValueError(
            "the outputs of the model are NaN or infinite; use precision 32-true, or other "
            "weights: where training diverged, train with a lower learning_rate"
        )
