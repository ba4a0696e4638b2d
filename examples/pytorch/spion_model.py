"""A checkpoint of `spion train` as a PyTorch model: the same logits, dense and sparse, every task.

    python spion_model.py RUN/checkpoints/best.safetensors samples.json

samples.json: a list of samples, each a list of token lists (one a tower). Prints a line of logits a
sample. Needs torch and safetensors; docs/formats.md says what the checkpoint holds.
"""
import json, sys, tomllib
import torch
from safetensors import safe_open
from torch.nn.functional import gelu, layer_norm, linear


class SpionModel:
    def __init__(self, path):
        with safe_open(path, "pt") as file:
            self.w = {name: file.get_tensor(name) for name in file.keys()}
            self.s = tomllib.loads(file.metadata()["settings"])

    def norm(self, x, name):
        return layer_norm(x, x.shape[-1:], self.w[name + ".gamma"], self.w[name + ".beta"], 1e-5)

    def attention(self, x, lengths, i):
        heads, dim, length, block = self.s["heads"], self.s["head-dim"], self.s["length"], self.s["block"]
        qkv = linear(x, self.w[f"layer{i}.qkv.weight"], self.w[f"layer{i}.qkv.bias"])
        q, k, v = qkv.view(-1, length, 3, heads, dim).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-1, -2) * dim ** -0.5
        computed = torch.ones(length, length, dtype=torch.bool)
        if f"pattern.layer{i}" in self.w:  # sparse: a pruned element counts as a score of 0, or not at all
            blocks = self.w[f"pattern.layer{i}"].bool()  # [nb, nb], or of each head [H, nb, nb]
            computed = blocks.repeat_interleave(block, -2).repeat_interleave(block, -1)[..., :length, :length]
        allowed = computed & (torch.arange(length) < lengths[:, None])[:, None, None, :]
        pruned = (length - computed.sum(-1)) if self.s["softmax"] == "pruned_zero" else torch.zeros(length)
        most = scores.masked_fill(~allowed, 0).amax(-1, keepdim=True).clamp(min=0)
        p = torch.exp(scores - most) * allowed
        total = p.sum(-1, keepdim=True) + pruned[..., None] * torch.exp(-most)
        o = (p / total.clamp(min=1e-30) @ v).transpose(1, 2).reshape(x.shape)
        return linear(o, self.w[f"layer{i}.out.weight"], self.w[f"layer{i}.out.bias"])

    def __call__(self, samples):  # [B] of [towers] of token lists -> logits [B, classes]
        front = [len(self.w["token"]) - 1] if self.s["pooling"] == "cls" else []  # the class token
        sequences, length = [front + s[t] for t in range(len(samples[0])) for s in samples], self.s["length"]
        ids = torch.tensor([s + [0] * (length - len(s)) for s in sequences])
        lengths = torch.tensor([len(s) for s in sequences])
        x = self.w["token"][ids] + self.w["position"]
        for i in range(self.s["layers"]):
            x = x + self.attention(self.norm(x, f"layer{i}.norm1"), lengths, i)
            hidden = linear(self.norm(x, f"layer{i}.norm2"), self.w[f"layer{i}.feed_forward1.weight"],
                            self.w[f"layer{i}.feed_forward1.bias"])
            x = x + linear(gelu(hidden), self.w[f"layer{i}.feed_forward2.weight"],
                           self.w[f"layer{i}.feed_forward2.bias"])
        inside = (torch.arange(length) < lengths[:, None])[..., None]
        rows = self.norm(x, "final_norm")
        pooled = rows[:, 0] if front else (rows * inside).sum(1) / length
        if len(samples[0]) == 2:
            a, b = pooled.chunk(2)
            pooled = torch.cat([a, b, a * b, a - b], -1)
        hidden = linear(pooled, self.w["head1.weight"], self.w["head1.bias"]).relu()
        return linear(hidden, self.w["head2.weight"], self.w["head2.bias"])


if __name__ == "__main__":
    for logits in SpionModel(sys.argv[1])(json.load(open(sys.argv[2]))).tolist():
        print(json.dumps(logits))
