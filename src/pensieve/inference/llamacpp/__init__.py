"""llama.cpp behind the Backend protocol; the only place that imports it."""
