"""Images as clients send them: opened with care, upright, in RGB."""

from io import BytesIO

from PIL import Image, ImageOps

from yapit import InvalidInputError

# Formats whose readers are sound; no vector graphics, no documents, nothing that another program is started for.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_PIXELS = 50_000_000
_WHITE = (255, 255, 255)


def opened(data: bytes, param: str, max_bytes: int) -> Image.Image:
    """Return an image, RGB and upright, what is transparent on white; of an animation, its first frame.

    Raises:
        InvalidInputError: it is too large, damaged or of another format; `param` is the request's field.
    """
    if len(data) > max_bytes:
        raise InvalidInputError(f"The image is larger than {max_bytes} bytes.", param=param)
    try:
        found = Image.open(BytesIO(data), formats=FORMATS)
        if found.width * found.height > MAX_PIXELS:
            raise Image.DecompressionBombError  # noqa: TRY301 - as Pillow does, above more
        return _flat(ImageOps.exif_transpose(found))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        message = f"The image has more than {MAX_PIXELS} pixels."
        raise InvalidInputError(message, param=param) from error
    except Exception as error:  # a reader of damaged data raises anything
        message = f"The image cannot be read; it must be one of {', '.join(FORMATS)}, and whole."
        raise InvalidInputError(message, param=param) from error


def _flat(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = image.point(lambda value: value / 256).convert("L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), image)
    return image.convert("RGB")
