"""A Flask app that streams a language model's answer, and stops the model when the client leaves.

uvicorn llm_stream:application
curl -N -H 'Content-Type: application/json' -d '{"prompt": "Hello"}' http://127.0.0.1:8000/chat
"""

import itertools
import json
import time
from collections.abc import Callable, Iterator

from flask import Flask, Response, request

from a2wsgi import WSGIMiddleware

app = Flask(__name__)


def generate(prompt: str, should_stop: Callable[[], bool]) -> Iterator[str]:
    """Stand in for a model: every token costs something."""
    tokens = 0
    try:
        for word in itertools.cycle(f"You said: {prompt}. Let me think. ".split()):
            if should_stop():
                break
            time.sleep(0.05)
            tokens += 1
            yield f"{word} "
    finally:
        print(f"The model was stopped after {tokens} tokens.")


@app.post("/chat")
def chat() -> Response:
    """Answer token by token. The bridge notices a client that leaves even while the model is silent."""
    tokens = generate(request.json["prompt"], request.environ["a2wsgi.disconnected"].is_set)
    return Response((f"data: {json.dumps(token)}\n\n" for token in tokens), mimetype="text/event-stream")


application = WSGIMiddleware(app, workers=200)  # each open stream holds a thread
