"""Features of two frozen image encoders of different scale: what does each normalization leave unexplained?

    python benchmarks/vision_features.py [--steps 600] [--seeds 3]

Images are random crops of 32 x 32 pixels of the photograph that matplotlib ships (Grace Hopper, 1983), of
which two of eight strips are held out. The teachers see them differently: one takes the amplitude of oriented
contrasts in pixels from 0 to 1, which is small; the other is a convolutional autoencoder, trained here on
pixels from 0 to 255, whose code is large. The student is a small convolutional network with a linear head
for each, and learns from 16 positions of an image as AM-RADIO's students do from patches. About a minute on
one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from matplotlib.cbook import get_sample_data
from matplotlib.image import pil_to_array
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from sweeps.features import (
    MODES,
    FeatureHead,
    FeatureLoss,
    FeatureMoments,
    Normalization,
    UnexplainedVariance,
    combined_loss,
    fit_normalization,
    fvu_summary,
)
from sweeps.features.losses import LossName
from sweeps.features.normalization import Mode

SIZE, BATCH, WIDTH = 32, 32, 24
"""Pixels of a side of an image, images of a batch, channels of the student."""
IMAGES, RATE = 4096, 3e-3
"""Images that are learned from, and the learning rate of all students at the start."""
STRIP, HELD_OUT = 64, (2, 6)
"""Width of a strip of the photograph in pixels, and numbers of the strips that are held out."""
ORIENTATIONS, WAVELENGTHS, WINDOW = 8, (3.0, 5.0, 8.0), 9
FLOOR = 1e-6
"""Share of the largest eigenvalue to which smaller ones are raised under whitening."""

Encoder = Callable[[Tensor], Tensor]
"""Function from images ``(batch, 3, SIZE, SIZE)`` of pixels from 0 to 1 to features ``(batch, 16, C)``."""


def photograph() -> Tensor:
    """Return the photograph in strips, ``(8, 3, height, STRIP)``, from 0 to 1."""
    with get_sample_data("grace_hopper.jpg") as file, Image.open(file) as image:
        pixels = pil_to_array(image.convert("RGB")).copy()
    whole = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    return torch.stack(whole[:, :, : whole.shape[2] // STRIP * STRIP].split(STRIP, 2))


def crops(strips: Tensor, count: int, seed: int) -> Tensor:
    """Return random crops of ``strips``, ``(count, 3, SIZE, SIZE)``."""
    draw = np.random.default_rng(seed)
    limits = len(strips), strips.shape[2] - SIZE, strips.shape[3] - SIZE
    places = zip(*(draw.integers(0, limit, count).tolist() for limit in limits), strict=True)
    return torch.stack([strips[n, :, y : y + SIZE, x : x + SIZE] for n, y, x in places])


def contrasts() -> Encoder:
    """Return the encoder of oriented contrasts: amplitude of pairs of Gabor filters, pooled, 48 channels."""
    filters = torch.stack(list(_gabor_pairs()))[:, None]

    def encode(images: Tensor) -> Tensor:
        found = F.conv2d(images.mean(1, keepdim=True), filters, padding=WINDOW // 2)
        pairs = found.unflatten(1, (-1, 2))
        amplitude = pairs.square().sum(2).sqrt()
        return _tokens(torch.cat([F.avg_pool2d(amplitude, 8), F.max_pool2d(amplitude, 8)], 1))

    return encode


def _gabor_pairs() -> Iterator[Tensor]:
    steps = torch.arange(WINDOW) - WINDOW // 2
    y, x = torch.meshgrid(steps.float(), steps.float(), indexing="ij")
    for wavelength in WAVELENGTHS:
        window = torch.exp(-(x**2 + y**2) / (2 * (0.4 * wavelength) ** 2))
        for number in range(ORIENTATIONS):
            angle = torch.tensor(torch.pi * number / ORIENTATIONS)
            phase = 2 * torch.pi * (x * angle.cos() + y * angle.sin()) / wavelength
            for wave in (phase.cos(), phase.sin()):
                each = window * wave
                yield (each - each.mean()) / window.sum()


def autoencoder(strips: Tensor, steps: int, seed: int = 7) -> Encoder:
    """Return the encoder of an autoencoder that was trained on crops of ``strips``, 60 channels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = nn.Sequential(
            nn.Conv2d(3, 32, 4, stride=4), nn.GELU(), nn.Conv2d(32, 60, 3, stride=2, padding=1)
        )
        decoder = nn.Sequential(nn.ConvTranspose2d(60, 32, 2, stride=2), nn.GELU(), nn.Conv2d(32, 48, 1))
    optimizer = torch.optim.AdamW([*encoder.parameters(), *decoder.parameters()], lr=2e-3)
    for step in range(steps):
        pixels = 255 * crops(strips, BATCH, seed=10**6 + step)
        made = F.pixel_shuffle(decoder(encoder(pixels)), 4)
        optimizer.zero_grad()
        (made - pixels).square().mean().backward()
        optimizer.step()
    encoder.requires_grad_(False)
    return lambda images: _tokens(encoder(255 * images))


def _tokens(features: Tensor) -> Tensor:
    """Return maps ``(batch, C, 4, 4)`` as ``(batch, 16, C)``."""
    return features.flatten(2).transpose(1, 2)


@dataclass(frozen=True, slots=True)
class Study:
    """Images that are learned from and images that are held out, with the features of two frozen encoders."""

    seen: Tensor
    unseen: Tensor
    features: dict[str, Tensor]
    """Features of the images that are seen, by encoder, ``(images, 16, C)``."""
    unseen_features: dict[str, Tensor]

    @classmethod
    def made(cls, steps: int, images: int = IMAGES) -> Study:
        """Return the study with an autoencoder of ``steps`` steps."""
        strips = photograph()
        kept = [number for number in range(len(strips)) if number not in HELD_OUT]
        teachers = {"contrasts": contrasts(), "autoencoder": autoencoder(strips[kept], steps)}
        seen, unseen = crops(strips[kept], images, seed=0), crops(strips[list(HELD_OUT)], images // 4, seed=1)
        of_seen, of_unseen = (
            {name: torch.cat([encode(some) for some in each.split(256)]) for name, encode in teachers.items()}
            for each in (seen, unseen)
        )
        return cls(seen, unseen, of_seen, of_unseen)

    def moments(self) -> dict[str, FeatureMoments]:
        """Return the statistics of the teachers' features, chunk by chunk."""
        found = {}
        for name, features in self.features.items():
            total = FeatureMoments.empty(features.shape[-1])
            for chunk in features.split(256):
                total = total.with_features(chunk)
            found[name] = total
        return found

    def trained(
        self, maps: dict[str, Normalization], steps: int, seed: int, loss: LossName = "mse"
    ) -> dict[str, float]:
        """Return FVU by teacher, and mean, worst and balance, of a student on the images held out."""
        body, heads = _student(maps, seed)
        optimizer = torch.optim.AdamW([*body.parameters(), *heads.parameters()], lr=RATE)
        distance, draw = FeatureLoss(loss), torch.Generator().manual_seed(seed)
        targets = {name: each.normalize(self.features[name]) for name, each in maps.items()}
        for step in range(steps):
            chosen = torch.randint(len(self.seen), (BATCH,), generator=draw)
            hidden = _tokens(body(self.seen[chosen]))
            losses = [distance(heads[name](hidden), each[chosen]) for name, each in targets.items()]
            for group in optimizer.param_groups:
                group["lr"] = RATE * (1 - step / steps)
            optimizer.zero_grad()
            combined_loss(losses).backward()
            optimizer.step()
        return self._fvu(body, heads, maps)

    @torch.no_grad()
    def _fvu(self, body: nn.Module, heads: nn.ModuleDict, maps: dict[str, Normalization]) -> dict[str, float]:
        hidden = _tokens(body(self.unseen))
        fvu = {}
        for name, each in maps.items():
            predicted = each.denormalize(heads[name](hidden))
            fvu[name] = UnexplainedVariance.of(predicted, self.unseen_features[name]).fvu()
        return fvu | fvu_summary(fvu)


def _student(maps: dict[str, Normalization], seed: int) -> tuple[nn.Sequential, nn.ModuleDict]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = nn.Sequential(
            *(nn.Conv2d(3, WIDTH, 4, stride=4), nn.GELU()),
            *(nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1), nn.GELU(), nn.Conv2d(WIDTH, WIDTH, 1)),
        )
        heads = nn.ModuleDict({name: FeatureHead(WIDTH, len(each.mean)) for name, each in maps.items()})
    return body, heads


def table(study: Study, steps: int, seeds: int, modes: tuple[Mode, ...] = MODES) -> pd.DataFrame:
    """Return one row for each mode and seed: FVU of both teachers, their mean, worst and balance."""
    moments = study.moments()
    rows = []
    for mode in modes:
        floor = FLOOR if mode in ("pca-w", "zca", "hca", "standardize") else None
        maps = {name: fit_normalization(each, mode, floor) for name, each in moments.items()}
        rows += [{"mode": mode, "seed": seed} | study.trained(maps, steps, seed) for seed in range(seeds)]
    return pd.DataFrame(rows)


def summary(found: pd.DataFrame, control: str = "scalar") -> pd.DataFrame:
    """Return means over seeds, and the paired difference of the mean FVU from ``control``, with its error."""
    by_seed = found.pivot(index="seed", columns="mode", values="mean")
    apart = by_seed.sub(by_seed[control], axis=0)
    made = found.drop(columns="seed").groupby("mode", sort=False).mean()
    return made.assign(difference=apart.mean(), standard_error=apart.sem())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    study = Study.made(options.steps)
    for name, moments in study.moments().items():
        scale = float(moments.covariance().diagonal().mean().sqrt())
        print(f"{name}: {moments.width} channels, standard deviation {scale:.3g}")
    print(summary(table(study, options.steps, options.seeds)).round(4).to_string())


if __name__ == "__main__":
    main()
