"""LeNet-5 on Fashion-MNIST as PyTorch's MNIST example does it: torchvision's data set behind a DataLoader.

python -m peers.epoch_torch EPOCHS DIRECTORY
"""

import os
import sys

import torch
from torchvision import datasets, transforms

from peers.torch_networks import network

BATCH = 128


def main() -> None:
    transform = transforms.Compose([transforms.Pad(2), transforms.ToTensor()])
    workers = len(os.sched_getaffinity(0))
    train, test = (
        torch.utils.data.DataLoader(
            datasets.FashionMNIST(sys.argv[2], train=train, transform=transform),
            batch_size=BATCH,
            shuffle=train,
            num_workers=workers,
        )
        for train in (True, False)
    )
    net = network("lenet5", 10)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for _ in range(int(sys.argv[1])):
        net.train()
        for x, y in train:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(net(x.to(memory_format=torch.channels_last)), y)
            loss.backward()
            optimizer.step()
        net.eval()
        right = 0
        with torch.no_grad():
            for x, y in test:
                right += (net(x.to(memory_format=torch.channels_last)).argmax(1) == y).sum().item()
        print(loss.item(), right / len(test.dataset))


if __name__ == "__main__":
    main()
