"""Load a pattern, call it, train through it, look at its mask and its plan."""

from pathlib import Path

import torch

import attnlang

HERE = Path(__file__).parent


def main() -> None:
    torch.manual_seed(0)
    pattern = attnlang.load(HERE / "sliding_window.attn")
    print(pattern)

    # [batch, heads, length, features]; four query heads share each key head
    q = torch.randn(1, 8, 300, 64, requires_grad=True)
    k = torch.randn(1, 2, 300, 64, requires_grad=True)
    v = torch.randn(1, 2, 300, 64, requires_grad=True)

    out, lse = pattern(q, k, v, window=64, return_lse=True, target="eager")
    out.square().mean().backward()
    print("result", tuple(out.shape), "lse", tuple(lse.shape), "gradient of K", tuple(k.grad.shape))

    reference = pattern.reference(q, k, v, window=64)
    print("away from the reference by at most", (out - reference).abs().max().item())

    # one new token, the whole past: the last query sees the last key
    step = pattern(q[:, :, -1:].detach(), k.detach(), v.detach(), window=64, target="eager")
    torch.testing.assert_close(step, out[:, :, -1:].detach())

    mask = pattern.mask(12, 12, window=4)[0, 0]
    print("\n".join("".join("#" if seen else "." for seen in row) for row in mask.tolist()))

    print(pattern.plan(65536, 65536, heads=32, kv_heads=8, head_dim=128, window=1024, target="cuda:90"))


if __name__ == "__main__":
    main()
