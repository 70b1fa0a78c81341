"""What an answer must look like: JSON schemas and forced tool calls as small grammars, held by llguidance."""
