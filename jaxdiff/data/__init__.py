"""Images, kernels, and the course's data set of both."""

from jaxdiff.data.dataset import Dataset, Measurement, course_dataset
from jaxdiff.data.images import (
    Picture,
    example,
    faces,
    fit,
    load_images,
    read_image,
    read_picture,
    to_uint8,
    write_image,
)
from jaxdiff.data.kernels import gaussian_kernel, load_kernel, load_kernels, motion_kernel
from jaxdiff.data.sources import list_images

__all__ = [
    "Dataset",
    "Measurement",
    "Picture",
    "course_dataset",
    "example",
    "faces",
    "fit",
    "gaussian_kernel",
    "list_images",
    "load_images",
    "load_kernel",
    "load_kernels",
    "motion_kernel",
    "read_image",
    "read_picture",
    "to_uint8",
    "write_image",
]
