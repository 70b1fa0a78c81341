"""An answer that fits a schema, as an object: the server holds the model to it, token by token."""

import os
import sys

import anthropic
from pydantic import BaseModel


class City(BaseModel):
    """What is wanted to be known."""

    city: str
    degrees: float


client = anthropic.Anthropic(
    base_url=os.environ.get("PENSIEVE_URL", "http://127.0.0.1:7777"),
    api_key=os.environ.get("PENSIEVE_API_KEY", "any"),
)
question = " ".join(sys.argv[1:]) or "How warm is it in Rome, at a guess?"
answer = client.messages.parse(
    model="local", max_tokens=500, messages=[{"role": "user", "content": question}], output_format=City
)
city = answer.parsed_output
print("no answer" if city is None else f"{city.city}: {city.degrees:g} degrees")
