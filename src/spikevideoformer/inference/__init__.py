"""Prediction on videos: labels with probabilities, firing rates, annotated video."""
