"""The classic small classifier, on generated data, which the scenarios train, save, load and resume."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim

BATCH = 8


class Net(nn.Module):
    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = F.relu(self.fc1(torch.flatten(x, 1)))
        return self.fc3(F.relu(self.fc2(x)))


class NormedNet(nn.Module):
    """One with BatchNorm, whose version in ``_metadata`` a strict load looks at."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.flatten(self.features(x), 1))


def make_net(seed: int = 0, kind: Callable[[], nn.Module] = Net) -> nn.Module:
    torch.manual_seed(seed)
    return kind()


def images(count: int = 4, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def predictions(net: nn.Module) -> Tensor:
    net.eval()
    with torch.no_grad():
        return net(images())


def sgd(net: nn.Module) -> optim.Optimizer:
    return optim.SGD(net.parameters(), lr=0.001, momentum=0.9)


def adam(net: nn.Module) -> optim.Optimizer:
    return optim.Adam(net.parameters(), lr=0.001, amsgrad=True)


@dataclass
class Training:
    """Everything that a step depends on: with dropout of the embedding, random flips and noise, all three RNGs."""

    net: nn.Module
    optimizer: optim.Optimizer
    scheduler: optim.lr_scheduler.LRScheduler
    embedding: nn.Embedding

    @classmethod
    def start(cls, make_optimizer: Callable[[nn.Module], optim.Optimizer], seed: int) -> "Training":
        random.seed(seed)
        np.random.seed(seed)
        net = make_net(seed)
        embedding = nn.Embedding(10, 3)
        optimizer = make_optimizer(net)
        optimizer.add_param_group({"params": embedding.parameters(), "lr": 0.01})
        return cls(net, optimizer, optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5), embedding)

    def epoch(self) -> float:
        """One pass over the data, in an order and with noise drawn from torch's, numpy's and Python's generators."""
        inputs, labels = images(4 * BATCH, seed=2), torch.arange(4 * BATCH) % 10
        self.net.train()
        losses = [self._step(inputs[batch], labels[batch]) for batch in _batches(len(inputs))]
        self.scheduler.step()
        return sum(losses) / len(losses)

    def _step(self, x: Tensor, y: Tensor) -> float:
        if random.random() < 0.5:
            x = x.flip(3)
        x = x + float(np.random.normal(scale=0.1))
        x = x + F.dropout(self.embedding(y))[:, :, None, None]
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.net(x), y)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def general_checkpoint(self, epoch: int, loss: float) -> dict[str, Any]:
        """All of it, as people put it into a ``.tar``."""
        return {
            "epoch": epoch,
            "loss": loss,
            "model_state_dict": self.net.state_dict(),
            "optimizer_state_dict": self.optimizer.state_dict(),
            "scheduler_state_dict": self.scheduler.state_dict(),
            "embedding": self.embedding.weight.detach(),
            "rng": {"torch": torch.get_rng_state(), "numpy": np.random.get_state(), "python": random.getstate()},
        }

    def resume(self, checkpoint: dict[str, Any]) -> None:
        self.net.load_state_dict(checkpoint["model_state_dict"])
        self.optimizer.load_state_dict(checkpoint["optimizer_state_dict"])
        self.scheduler.load_state_dict(checkpoint["scheduler_state_dict"])
        with torch.no_grad():
            self.embedding.weight.copy_(checkpoint["embedding"])
        torch.set_rng_state(checkpoint["rng"]["torch"])
        np.random.set_state(checkpoint["rng"]["numpy"])
        random.setstate(checkpoint["rng"]["python"])


def _batches(count: int) -> Iterator[Tensor]:
    return iter(torch.randperm(count).split(BATCH))
