"""The Responses API: requests, items, answers and events, as pure translations in both directions."""
