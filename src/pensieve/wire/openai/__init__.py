"""OpenAI's APIs: requests, answers, events and errors to our values and back."""
