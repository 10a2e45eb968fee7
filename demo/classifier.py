"""The classic small classifier, images that it can learn, and a plain training loop."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

CLASSES = 10
BATCH = 8
SIGNAL = 0.25


class Classifier(nn.Module):
    """A classifier of images of shape (N, 3, 32, 32) into ``classes``. Returns scores of shape (N, classes)."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, classes)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.pool(torch.relu(self.conv1(images)))
        maps = self.pool(torch.relu(self.conv2(maps)))
        hidden = torch.relu(self.fc1(torch.flatten(maps, 1)))
        scores: Tensor = self.fc3(torch.relu(self.fc2(hidden)))
        return scores


class TinyDetector(nn.Module):
    """Another model: the same two convolutions, but its own head with two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.head = nn.Linear(400, 2)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.pool(torch.relu(self.conv1(images)))
        maps = self.pool(torch.relu(self.conv2(maps)))
        scores: Tensor = self.head(torch.flatten(maps, 1))
        return scores


@dataclass(frozen=True, slots=True)
class Data:
    images: Tensor
    labels: Tensor


def make_data(count: int, seed: int) -> Data:
    """Make images of noise over a faint pattern for each class."""
    patterns = nn.functional.interpolate(torch.randn(CLASSES, 3, 4, 4, generator=_random(0)), size=32, mode="bilinear")
    random = _random(seed)
    labels = torch.randint(CLASSES, (count,), generator=random)
    return Data(SIGNAL * patterns[labels] + torch.randn(count, 3, 32, 32, generator=random), labels)


@dataclass(slots=True)
class Run:
    """A training run: a model, its optimizer, and their progress."""

    model: Classifier
    optimizer: torch.optim.SGD
    epoch: int = 0
    loss: float = float("nan")

    def train(self, data: Data) -> None:
        """Train for one more epoch. The order of the images depends only on the epoch's number."""
        self.epoch += 1
        total = 0.0
        order = torch.randperm(len(data.labels), generator=_random(self.epoch))
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            self.optimizer.zero_grad()
            loss = nn.functional.cross_entropy(self.model(data.images[batch]), data.labels[batch])
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no annotation for it
            self.optimizer.step()
            total += loss.item() * len(batch)
        self.loss = total / len(data.labels)


def new_run() -> Run:
    model = Classifier()
    return Run(model, torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9))


def _random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
