"""Server on this machine that scores prompts by a model of transformers, as vLLM or SGLang answers."""

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
        self.kind = "vllm"
        """vllm, echo (of ids), sglang, or llama.cpp, whose server scores no prompts."""
        self.busy = 0
        """Requests that are still to be answered by 503."""
        self.gone_after: int | None = None
        """Requests after which all others are answered by 503."""
        self.requests: list[dict[str, Any]] = []
        self.lock = Lock()

    def answer(self, path: str, asked: dict[str, Any] | None, key: str | None) -> tuple[int, Any]:
        if self.key and key != f"Bearer {self.key}":
            return 401, {"error": {"message": "Unauthorized"}}
        if path == "/version":
            return 200, {"version": "0.16.0"}
        if path == "/v1/models":
            return 200, {"object": "list", "data": [{"id": self.name, "object": "model"}]}
        native = path == "/generate" and self.kind == "sglang"
        if asked is None or not (native or path == "/v1/completions"):
            return 404, {"detail": "Not Found"}
        with self.lock:
            self.requests.append(asked)
            gone = self.gone_after is not None and len(self.requests) > self.gone_after
            if self.busy or gone:
                self.busy -= bool(self.busy)
                return 503, {"error": {"message": "overloaded"}}
        if native:
            return 200, {"text": "", "meta_info": self._native(asked)}
        if asked.get("echo") and self.kind == "llama.cpp":
            return 500, {"error": {"message": "Only no echo is supported"}}
        if asked["model"] != self.name:
            return 404, {"error": {"message": f"The model `{asked['model']}` does not exist."}}
        if max(asked.get("prompt_logprobs", 0), asked.get("logprobs", 0)) > self.max_logprobs:
            return 400, {"error": {"message": f"Requested more than max_logprobs {self.max_logprobs}"}}
        return 200, {"id": "cmpl-1", "object": "text_completion", "choices": [self._choice(asked)]}

    @torch.no_grad()
    def _choice(self, asked: dict[str, Any]) -> dict[str, Any]:
        prompt = asked["prompt"]
        log_p = self._log_p(prompt)
        choice: dict[str, Any] = {"index": 0, "text": "", "finish_reason": "length", "logprobs": None}
        if asked.get("echo"):
            return choice | {"logprobs": self._echo(prompt, log_p, asked)}
        if self.kind != "vllm":
            return choice
        return choice | {"prompt_logprobs": [None, *self._scored(prompt, log_p, asked["prompt_logprobs"])]}

    def _log_p(self, prompt: list[int]) -> torch.Tensor:
        return self.model(torch.tensor([prompt])).logits[0].log_softmax(-1)

    @torch.no_grad()
    def _native(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Return what SGLang says: the prompt's own tokens, and beside them the likeliest at each place."""
        prompt = asked["input_ids"]
        log_p = self._log_p(prompt)[:-1]
        own = [float(row[each]) for row, each in zip(log_p, prompt[1:], strict=True)]

        def tuples(values: list[Any], tokens: list[int]) -> list[list[Any]]:
            texts = [self.tokenizer.decode([each], skip_special_tokens=False) for each in tokens]
            with_text = asked["return_text_in_logprobs"]
            return [
                [p, t, text if with_text else None] for p, t, text in zip(values, tokens, texts, strict=True)
            ]

        tops = [row.topk(asked["top_logprobs_num"]) for row in log_p]
        likeliest = [tuples(each.values.tolist(), each.indices.tolist()) for each in tops]
        return {
            "input_token_logprobs": tuples([None, *own], prompt),
            "input_top_logprobs": [None, *likeliest],
        }

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
            if asked.get("return_tokens_as_token_ids") and self.kind != "sglang":
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
