"""Messages to model input."""
