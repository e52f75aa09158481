"""Server on this machine that scores prompts by a model of transformers, as vLLM answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

import torch
from tokenizers import Tokenizer


class Answers:
    """Answers of the server, and the faults that a test asks of it."""

    def __init__(self, model: Any, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.name, self.key, self.max_logprobs = "tiny", "", 20
        self.echo_only = False
        self.busy = 0
        """Requests that are still to be answered by 503."""
        self.requests: list[dict[str, Any]] = []
        self.lock = Lock()

    def answer(self, path: str, asked: dict[str, Any] | None, key: str | None) -> tuple[int, Any]:
        if self.key and key != f"Bearer {self.key}":
            return 401, {"error": {"message": "Unauthorized"}}
        if path == "/version":
            return 200, {"version": "0.16.0"}
        if path == "/v1/models":
            return 200, {"object": "list", "data": [{"id": self.name, "object": "model"}]}
        if path != "/v1/completions" or asked is None:
            return 404, {"detail": "Not Found"}
        with self.lock:
            self.requests.append(asked)
            if self.busy:
                self.busy -= 1
                return 503, {"error": {"message": "overloaded"}}
        if asked["model"] != self.name:
            return 404, {"error": {"message": f"The model `{asked['model']}` does not exist."}}
        if max(asked.get("prompt_logprobs", 0), asked.get("logprobs", 0)) > self.max_logprobs:
            return 400, {"error": {"message": f"Requested more than max_logprobs {self.max_logprobs}"}}
        return 200, {"id": "cmpl-1", "object": "text_completion", "choices": [self._choice(asked)]}

    @torch.no_grad()
    def _choice(self, asked: dict[str, Any]) -> dict[str, Any]:
        prompt = asked["prompt"]
        log_p = self.model(torch.tensor([prompt])).logits[0].log_softmax(-1)
        choice: dict[str, Any] = {"index": 0, "text": "", "finish_reason": "length", "logprobs": None}
        if asked.get("echo"):
            return choice | {"logprobs": self._echo(prompt, log_p, asked)}
        if self.echo_only:
            return choice
        return choice | {"prompt_logprobs": [None, *self._scored(prompt, log_p, asked["prompt_logprobs"])]}

    def _scored(self, prompt: list[int], log_p: torch.Tensor, top: int) -> Iterator[dict[str, Any]]:
        """Yield the prompt's own token first, as vLLM does, then the likeliest."""
        for row, own in zip(log_p, prompt[1:], strict=False):
            ids = dict.fromkeys([own, *row.topk(top).indices.tolist()])
            yield {
                str(each): {
                    "logprob": float(row[each]),
                    "rank": int((row > row[each]).sum()) + 1,
                    "decoded_token": self.tokenizer.decode([each], skip_special_tokens=False),
                }
                for each in ids
            }

    def _echo(self, prompt: list[int], log_p: torch.Tensor, asked: dict[str, Any]) -> dict[str, Any]:
        def named(number: int) -> str:
            if asked.get("return_tokens_as_token_ids"):
                return f"token_id:{number}"
            return str(self.tokenizer.decode([number], skip_special_tokens=False))

        scored = [None, *self._scored(prompt, log_p, asked["logprobs"])]
        drawn = int(log_p[-1].argmax())
        own = [None if p is None else p[str(t)]["logprob"] for p, t in zip(scored, prompt, strict=True)]
        tops = [p and {named(int(n)): said["logprob"] for n, said in p.items()} for p in scored]
        return {
            "tokens": [named(each) for each in (*prompt, drawn)],
            "token_logprobs": [*own, float(log_p[-1, drawn])],
            "top_logprobs": [*tops, {named(drawn): float(log_p[-1, drawn])}],
        }


@contextmanager
def serving(answers: Answers) -> Iterator[str]:
    """Serve ``answers`` within this, at the URL that is given."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply(None)

        def do_POST(self) -> None:
            self.reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def reply(self, asked: dict[str, Any] | None) -> None:
            code, found = answers.answer(self.path, asked, self.headers.get("Authorization"))
            data = json.dumps(found).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """Print nothing of clients that left."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
