"""Time and memory of models, ours and others, measured alike."""
