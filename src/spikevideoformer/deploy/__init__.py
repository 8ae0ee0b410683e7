"""Running a trained network fast: folded weights, int8 convolutions, engines."""
