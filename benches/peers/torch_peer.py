"""The workloads on PyTorch.  torch_peer.py <cpu|cuda> <threads> <workload>...

Data, networks, protocol and fields are those of the other peers (protocol/src/lib.rs).
"""

import json
import os
import sys
import time

BEGAN = time.perf_counter()

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

BATCHES = 16
BLOCK_MS = float(os.environ.get("BENCH_BLOCK_MS", 150))
BLOCKS = int(os.environ.get("BENCH_BLOCKS", 7))


def hashed(i):
    with np.errstate(over="ignore"):
        x = i.astype(np.uint32) * np.uint32(0x9E3779B9)
        x ^= x >> np.uint32(16)
        x *= np.uint32(0x85EBCA6B)
        x ^= x >> np.uint32(13)
        x *= np.uint32(0xC2B2AE35)
        return x ^ (x >> np.uint32(16))


def unit(i):
    """Uniform in [-0.5, 0.5), by the index alone."""
    return ((hashed(i) >> np.uint32(8)).astype(np.float64) / (1 << 24) - 0.5).astype(np.float32)


def uniform(n, seed):
    return unit((np.arange(n, dtype=np.uint64) + (seed * 0x01000193 & 0xFFFFFFFF)).astype(np.uint32))


def class_batch(b, batch, features):
    classes = (b * batch + np.arange(batch)) % 10
    template = (classes[:, None] * features + np.arange(features)).astype(np.uint32) ^ np.uint32(0x5A5A0000)
    x = uniform(batch * features, 1000 + b).reshape(batch, features) + np.float32(0.5) * unit(template)
    return torch.from_numpy(x), torch.from_numpy(classes.astype(np.int64))


def conv3(inputs, outputs):
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.c1, self.n1 = conv3(16, 16), nn.BatchNorm2d(16)
        self.c2, self.n2 = conv3(16, 16), nn.BatchNorm2d(16)

    def forward(self, x):
        y = F.relu(self.n1(self.c1(x)))
        return F.relu(self.n2(self.c2(y)) + x)


class Mean(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


def mlp():
    return nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10))


def lenet():
    images = [nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)]
    head = [nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)]
    return nn.Sequential(nn.Unflatten(1, (1, 28, 28)), *images, nn.Flatten(), *head)


def resnet():
    stem = [nn.Unflatten(1, (3, 32, 32)), conv3(3, 16), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(*stem, Block(), Block(), Block(), Mean(), nn.Linear(16, 10))


# name: network, batch, features
NETS = {"mlp": (mlp, 64, 784), "lenet": (lenet, 64, 784), "resnet": (resnet, 32, 3 * 32 * 32)}


class Trainer:
    def __init__(self, name, batches, device):
        torch.manual_seed(7)
        make, batch, features = NETS[name]
        self.model = make().to(device)
        self.batches = [tuple(t.to(device) for t in class_batch(b, batch, features)) for b in range(batches)]
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.taken = 0

    def step(self):
        x, y = self.batches[self.taken % len(self.batches)]
        self.taken += 1
        self.optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        return loss


class Peer:
    def __init__(self, device, threads):
        torch.set_num_threads(threads)
        self.device = device
        self.name = "torch-cuda" if device == "cuda" else f"torch-cpu-{threads}t"

    def wait(self):
        if self.device == "cuda":
            torch.cuda.synchronize()

    def block(self, run, runs):
        began = time.perf_counter()
        for _ in range(runs):
            run()
        self.wait()
        return (time.perf_counter() - began) * 1e3

    def time(self, run):
        warm = sum(self.block(run, 1) for _ in range(4)) * 1e-3
        runs = 1
        while (ms := self.block(run, runs)) < BLOCK_MS * 0.6 and runs < 1 << 14:
            runs = max(runs + 1, int(np.ceil(runs * min(8.0, BLOCK_MS / max(ms, 0.01)))))
        each = sorted(self.block(run, runs) / runs for _ in range(BLOCKS))
        single = sorted(self.block(run, 1) for _ in range(9))
        return {"median_ms": each[len(each) // 2], "min_ms": each[0], "sync_ms": single[4], "iters": runs, "warmup_s": warm}

    def say(self, workload, **fields):
        fields = {"peer": self.name, "workload": workload} | fields
        try:
            with open("/proc/self/status") as status:
                fields["peak_rss_mb"] = next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM:"))
        except OSError:
            pass
        print(json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in fields.items()}), flush=True)

    def train(self, workload, name):
        trainer = Trainer(name, BATCHES, self.device)
        first = trainer.step().item()
        t = self.time(trainer.step)
        last = trainer.step().item()
        self.say(workload, **t, steps_per_s=1e3 / t["median_ms"], loss_first=first, loss_last=last, steps=trainer.taken)

    def start(self, workload, name):
        trainer = Trainer(name, 1, self.device)
        loss = trainer.step().item()
        in_main = (time.perf_counter() - BEGAN) * 1e3
        t0 = os.environ.get("BENCH_T0_NS")
        total = (time.time_ns() - int(t0)) / 1e6 if t0 else in_main
        second = self.block(trainer.step, 1)
        self.say(workload, median_ms=total, min_ms=total, in_main_ms=in_main, second_step_ms=second, loss=loss)

    def tensor(self, shape, seed):
        return torch.from_numpy(uniform(int(np.prod(shape)), seed)).reshape(shape).to(self.device)

    @torch.no_grad()
    def kernel(self, workload):
        flops = gb = 0.0
        if workload.startswith("matmul_"):
            sizes = [int(n) for n in workload.removeprefix("matmul_").split("x")]
            m, k, n = sizes if len(sizes) == 3 else sizes * 3
            a, b = self.tensor((m, k), 1), self.tensor((k, n), 2)
            run, flops = lambda: a @ b, 2.0 * m * k * n
        elif workload == "softmax":
            x = self.tensor((512, 1024), 8)
            run, gb = lambda: torch.softmax(x, 1), 8.0 * 512 * 1024
        elif workload == "reduce_sum":
            x = self.tensor((4096, 1024), 9)
            run, gb = lambda: x.sum(1), 4.0 * 4096 * 1024
        elif workload == "elementwise":
            x = self.tensor((4 << 20,), 10)
            run, gb = lambda: torch.relu(x * 1.5 + 0.25) * x, 8.0 * (4 << 20)
        else:
            sys.exit(f"torch_peer.py has no workload {workload}")
        t = self.time(run)
        rate = {"gflops": flops / t["median_ms"] / 1e6} if flops else {"gb_s": gb / t["median_ms"] / 1e6}
        self.say(workload, **t, **rate)

    def run(self, workload):
        net, _, kind = workload.rpartition("_")
        if kind == "train" and net in NETS:
            self.train(workload, net)
        elif net == "startup" and kind in NETS:
            self.start(workload, kind)
        else:
            self.kernel(workload)


if __name__ == "__main__":
    if len(sys.argv) < 4 or sys.argv[1] not in ("cpu", "cuda"):
        sys.exit("usage: torch_peer.py <cpu|cuda> <threads> <workload>...")
    peer = Peer(sys.argv[1], int(sys.argv[2]))
    for workload in sys.argv[3:]:
        peer.run(workload)
