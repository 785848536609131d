"""What of a padded batch of images or maps is real.

B images, H×W image or map, C channels, s stride in pixels

An image of h×w pixels in a larger batch has a map of ⌈h/s⌉×⌈w/s⌉ positions of its own, at the top left. Nothing that
is real may depend on the rest. Whatever reads around itself (a 3×3 convolution, interpolation) must find beyond that
map what it finds beyond the edge when the image is alone: zeros, or the edge again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

Size = tuple[int, int]  # (height, width)


@dataclass(frozen=True)
class Padding:
    """Which positions of a batch of H×W maps are real. `UNPADDED` is that of a batch in which all are.

    Attributes:
        valid: (B, H, W) boolean padding mask, true where a position holds something real; None if all do.
        sizes: (B, 2) integer (height, width) of each image's own map, in its top left corner; None as `valid` is.
    """

    valid: Tensor | None = None
    sizes: Tensor | None = None

    def clean(self, x: Tensor) -> Tensor:
        """Return a (B, H, W, C) map with zeros at padding, whatever it held there: 0 × NaN would stay NaN."""
        return x if self.valid is None else torch.where(self.valid[..., None], x, 0)

    def clean_planes(self, x: Tensor) -> Tensor:
        """Return a (B, C, H, W) map with zeros at padding."""
        return x if self.valid is None else torch.where(self.valid[:, None], x, 0)

    def extend_planes(self, x: Tensor) -> Tensor:
        """Return a (B, C, H, W) map whose padding repeats the edges of each image's own map, for interpolation."""
        if self.sizes is None:
            return x
        last = self.sizes - 1  # (B, 2)
        rows = torch.arange(x.shape[2], device=x.device).minimum(last[:, :1])  # (B, H)
        columns = torch.arange(x.shape[3], device=x.device).minimum(last[:, 1:])  # (B, W)
        x = x.gather(2, rows[:, None, :, None].expand_as(x))
        return x.gather(3, columns[:, None, None, :].expand_as(x))

    def sizes_within(self, size: Sequence[int], *, device: torch.device) -> Tensor:
        """Return (B or 1, 2): the sizes of the images' own maps, where all maps are of (height, width) `size`."""
        return _size_on(size, device) if self.sizes is None else self.sizes

    def downsample(self, factor: int) -> Padding:
        """Return the padding of the map whose positions each cover `factor`×`factor` positions of this one."""
        if self.valid is None or self.sizes is None:
            return self
        covered = pad_to_multiple(self.valid[..., None], factor)[..., 0]
        tiles = covered.unflatten(1, (-1, factor)).unflatten(3, (-1, factor))  # (B, H/f, f, W/f, f)
        return Padding(valid=tiles.any(dim=4).any(dim=2), sizes=-(-self.sizes // factor))


UNPADDED = Padding()


def find_image_padding(
    images: Tensor, image_sizes: Sequence[Size] | Tensor | None, valid: Tensor | None, *, in_chans: int
) -> Padding:
    """Return the padding of (B, in_chans, H, W) normalised images, see `find_padding`.

    Raises:
        ValueError: Images, sizes or mask do not fit the model or each other.
    """
    check_images(images, in_chans=in_chans)
    return find_padding(images.shape[2:], image_sizes, valid, batch=images.shape[0], device=images.device)


def find_padding(
    size: Sequence[int],
    image_sizes: Sequence[Size] | Tensor | None,
    valid: Tensor | None,
    *,
    batch: int,
    device: torch.device,
) -> Padding:
    """Return the padding of a batch of images of (height, width) `size`.

    Args:
        size: Of the batch in pixels.
        image_sizes: (height, width) of the real part of each image, None if none is smaller. A tensor on a GPU is not
            looked at, as that would wait for all that the GPU has yet to do: its sizes must lie within the batch's.
        valid: (B, H, W) boolean, true where a pixel is real; None if all inside `image_sizes` are.
        batch: Images B.
        device: Where they are.

    Raises:
        ValueError: Sizes or mask do not fit the batch.
    """
    height, width = size
    if valid is not None and (valid.shape != (batch, height, width) or valid.dtype != torch.bool):
        raise ValueError(
            f"valid: expected a boolean tensor of shape {(batch, height, width)}, got {valid.dtype} "
            f"{tuple(valid.shape)}"
        )
    if image_sizes is None:
        if valid is None:
            return UNPADDED
        return Padding(valid=valid, sizes=_size_on(size, device).expand(batch, -1))
    sizes = torch.as_tensor(image_sizes)
    if torch.compiler.is_compiling() or sizes.device.type != "cpu":
        _check_shape(sizes, batch)
    else:
        pairs = check_sizes(sizes, size, batch=batch)
        if valid is None and all(pair == (height, width) for pair in pairs):
            return UNPADDED
    sizes = sizes.to(device, non_blocking=sizes.device.type == "cpu")
    inside = _inside(sizes, (height, width))
    return Padding(valid=inside if valid is None else inside & valid, sizes=sizes)


def find_level_paddings(
    image_sizes: Sequence[Size],
    strides: Sequence[int],
    *,
    batch_size: Size,
    device: torch.device,
    valid: Tensor | None = None,
) -> list[Padding]:
    """Return the padding of the maps of each stride.

    Args:
        image_sizes: (height, width) of each image in pixels.
        strides: Pixels per position.
        batch_size: (height, width) of the padded batch in pixels.
        device: Where the maps are.
        valid: (B, H, W) boolean, true where a pixel is real; None if all inside `image_sizes` are.

    Raises:
        ValueError: The mask does not fit the batch.
    """
    if valid is not None:
        pixels = find_padding(batch_size, image_sizes, valid, batch=len(image_sizes), device=device)
        return [pixels.downsample(stride) for stride in strides]
    paddings = []
    for stride in strides:
        sizes = [size_at(size, stride) for size in image_sizes]
        whole = size_at(batch_size, stride)
        padding = UNPADDED
        if any(size != whole for size in sizes):
            own = torch.tensor(sizes, device=device)
            padding = Padding(valid=_inside(own, whole), sizes=own)
        paddings.append(padding)
    return paddings


def size_at(size: Size, stride: int) -> Size:
    """Return the (height, width) of the map of an image of (height, width) `size` pixels."""
    return -(-size[0] // stride), -(-size[1] // stride)


def check_images(images: Tensor, *, in_chans: int | None = None) -> None:
    """Refuse anything but a batch of normalised (B, C, H, W) images.

    Raises:
        ValueError: It is of another shape or type, or empty.
    """
    channels = "channels" if in_chans is None else str(in_chans)
    if images.ndim != 4 or (in_chans is not None and images.shape[1] != in_chans):
        raise ValueError(f"images: expected shape (batch, {channels}, height, width), got {tuple(images.shape)}")
    if not images.is_floating_point():
        raise ValueError(f"images: expected normalised floating-point pixels, got {images.dtype}")
    if images.shape[2] == 0 or images.shape[3] == 0:
        raise ValueError(f"images: height and width must be at least 1 pixel, got {tuple(images.shape)}")


def check_batch(images: Tensor, image_sizes: Sequence[Size] | Tensor | None) -> tuple[Size, ...]:
    """Return the (height, width) of each image of a padded (B, C, H, W) batch; by default that of the batch.

    Raises:
        ValueError: It is no batch of images, or there are not as many sizes as images, or one lies outside of it.
    """
    check_images(images)
    if len(images) == 0:
        raise ValueError(f"images: expected at least one image, got {tuple(images.shape)}")
    size = (images.shape[2], images.shape[3])
    return (size,) * len(images) if image_sizes is None else check_sizes(image_sizes, size, batch=len(images))


def check_sizes(image_sizes: Sequence[Size] | Tensor, size: Sequence[int], *, batch: int) -> tuple[Size, ...]:
    """Return the sizes of the images of a batch of (height, width) `size`, as pairs of integers.

    Raises:
        ValueError: There are not as many sizes as images, or one lies outside of the batch.
    """
    sizes = torch.as_tensor(image_sizes)
    _check_shape(sizes, batch)
    height, width = size
    pairs = tuple((h, w) for h, w in sizes.tolist())
    for number, (h, w) in enumerate(pairs):
        if not (1 <= h <= height and 1 <= w <= width):
            raise ValueError(
                f"image_sizes[{number}]=({h}, {w}): must lie between (1, 1) and the batch's ({height}, {width})"
            )
    return pairs


def _check_shape(sizes: Tensor, batch: int) -> None:
    if sizes.shape != (batch, 2) or sizes.is_floating_point():
        raise ValueError(
            f"image_sizes: expected {batch} pairs of integers (height, width), one for each image, "
            f"got {sizes.dtype} of shape {tuple(sizes.shape)}"
        )


def _size_on(size: Sequence[int], device: torch.device) -> Tensor:
    """Return (1, 2) with one size. It is made on the device: a copy from the CPU would wait for it."""
    return torch.stack([torch.full((1,), length, dtype=torch.int64, device=device) for length in size], dim=1)


def _inside(sizes: Tensor, size: Size) -> Tensor:
    """Return (B, H, W): what of H×W maps lies inside of (B, 2) `sizes`."""
    rows = torch.arange(size[0], device=sizes.device) < sizes[:, :1]  # (B, H)
    columns = torch.arange(size[1], device=sizes.device) < sizes[:, 1:]  # (B, W)
    return rows[:, :, None] & columns[:, None]


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pad (B, H, W, C) with zeros at the bottom and right until `multiple` divides H and W."""
    # Not `-H % multiple`: the size of the next map is then a short expression, and tracing with any size takes seconds.
    bottom, right = ((length + multiple - 1) // multiple * multiple - length for length in x.shape[1:3])
    return F.pad(x, (0, 0, 0, right, 0, bottom))
