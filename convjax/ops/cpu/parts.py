"""Batches in parts."""


def images_at_once(images: int, bytes_an_image: int, fit: int) -> int:
    """Returns how many images to take at a time, so that parts are equal and, if one image does, fit into memory.

    Args:
        images: in the batch.
        bytes_an_image: that each takes.
        fit: bytes that a part may take.
    """
    part = max(1, min(images, fit // bytes_an_image))
    while images % part:
        part -= 1
    return part
